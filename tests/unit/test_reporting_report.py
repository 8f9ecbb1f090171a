import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from epsilens.errors import ConfigError, DataError
from epsilens.reporting.config import StudyConfig
from epsilens.reporting.report import Inputs, build, tabulate
from tests.options import report_config

ROOT = Path(__file__).parents[2]
EVIL = '<script>alert("1")</script>'
PLAUSIBLE = ("gini", "sensitivity", "mass", "random")
CONFIG = report_config(
    attribution="gradient", metrics=("gini", "mass"), bootstrap=200, seed=0, confidence=0.95, plausible=PLAUSIBLE
)
METRICS = {
    "gini": {"label": "Gini index", "family": "conciseness", "better": "higher", "low": 0, "high": 1, "chance": None},
    "sensitivity": {
        "label": "Sensitivity",
        "family": "stability",
        "better": "lower",
        "low": 0,
        "high": 1.41,
        "chance": None,
    },
    "mass": {
        "label": "Relevance mass $x$",
        "family": "relevance",
        "better": "higher",
        "low": 0,
        "high": 1,
        "chance": 0.2,
    },
}
ATTRIBUTIONS = {"gradient": "method", "integrated_gradients@blur": "method", "random": "control"}


def picture(seed):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, size=(8, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()


def gallery(epsilon, images, label):
    entries = [
        {"row": i, "id": 40 + i, "label": label, "prediction": label if i else "ring", "confidence": 0.5 + epsilon / 20}
        for i in range(images)
    ]
    stems = ["input", *ATTRIBUTIONS]
    pictures = {f"{i}-{stem}": picture(i * 10 + k) for i in range(images) for k, stem in enumerate(stems)}
    return {"methods": list(ATTRIBUTIONS), "images": entries}, pictures


def attack_rows(rng, epsilon, seed, images):
    clean = 0.97 - epsilon / 100
    wanted = [("test", "clean", "linf", 0.0, clean), ("test_without_cue", "clean", "linf", 0.0, 0.6 + epsilon / 50)]
    wanted += [("test", "pgd", "linf", b, max(0.02, clean - b / (epsilon + 2) / 2)) for b in (0.0, 2.0, 8.0, 128.0)]
    wanted += [("test", "pgd", "l2", b, max(0.02, clean - b / 2)) for b in (0.0, 0.5, 8.0)]
    wanted += [("test", "autoattack", "linf", 8.0, 0.01 + epsilon / 20)]
    for split, attack, norm, budget, rate in wanted:
        for image, lucky in enumerate(rng.random(images) < rate):
            broken_by = "" if lucky else ("clean", "apgd_ce", "apgd_t")[image % 3] if attack == "autoattack" else attack
            yield {"study": "s", "epsilon": epsilon, "seed": seed, "split": split, "image": image, "attack": attack,
                   "norm": norm, "budget": budget, "correct": bool(lucky), "margin": 0.5,
                   "broken_by": broken_by}  # fmt: skip


def score_rows(rng, epsilon, seed, images, masks):
    for image in range(images):
        correct = bool(rng.random() < 0.97 or image == 0)
        for a, attribution in enumerate(ATTRIBUTIONS):
            for metric in METRICS:
                gain = 0.03 * epsilon * (attribution != "random") - 0.1 * a
                score = 0.5 + gain + 0.1 * rng.standard_normal() + 0.02 * seed
                if metric == "mass" and not (masks and image % 3):
                    score = np.nan
                yield {"study": "s", "epsilon": epsilon, "seed": seed, "image": image, "correct": correct,
                       "attribution": attribution, "metric": metric, "score": score}  # fmt: skip


def history(epsilon, seed):
    return [
        {"epoch": e, "loss": 2.0 / (e + 1 + seed), "learning_rate": 0.1, "validation_accuracy": 1 - 0.5 / (e + 1),
         "validation_robust_accuracy": 0.5 - 0.4 / (e + 1) if epsilon else None, "kept": e == 2}
        for e in range(4)
    ]  # fmt: skip


def gate(value=0.03, label="PGD-20 minus AutoAttack accuracy"):
    checks = [
        {
            "name": "gap",
            "label": label,
            "value": value,
            "limit": 0.08,
            "failed": value > 0.08,
            "source": "Somebody 2020",
        },
        {"name": "restarts", "label": "More starts", "value": None, "limit": 0.02, "failed": False, "source": "-"},
    ]
    return {"sound": value <= 0.08, "flags": ["gap"] if value > 0.08 else [], "checks": checks}


def study(epsilons=(0.0, 1.0, 4.0, 8.0), seeds=(0, 1), images=40, masks=True, label="disk", pictures=2):
    rng = np.random.default_rng(0)
    grid = [(e, s) for e in epsilons for s in seeds]
    splits = {name: {"images": 10, "per_class": [5, 5], "masks": 10, "sha256": "ab" * 32} for name in ("train", "test")}
    return Inputs(
        study=StudyConfig(name="synthetic", description="Made up & <small>"),
        norm="linf",
        budget=8.0,
        attacks=pd.DataFrame([row for e, s in grid for row in attack_rows(rng, e, s, images)]),
        scores=pd.DataFrame([row for e, s in grid for row in score_rows(rng, e, s, images, masks)]),
        gates={cell: gate() for cell in grid},
        histories={cell: history(*cell) for cell in grid},
        facts={
            "metrics": {name: fact | {"source": "Nobody 2020, arXiv:0000.00000"} for name, fact in METRICS.items()},
            "attributions": {n: {"kind": k, "source": "-", "label": n.title()} for n, k in ATTRIBUTIONS.items()},
        },
        manifest={
            "name": "shapes",
            "class_names": [label, "ring"],
            "channels": 3,
            "height": 8,
            "width": 6,
            "splits": splits,
        },
        galleries={e: gallery(e, pictures, label) for e in epsilons} if pictures else {},
        provenance={"package": "0.1.0", "commit": label},
        params={"study": {"name": "synthetic"}, "note": label},
    )


def built(inputs, config=CONFIG):
    return build(inputs, tabulate(inputs, config), config)


class Page(HTMLParser):
    """Collects tags and the addresses they load; fails on a tag closed out of order."""

    VOID = frozenset({"meta", "img", "br", "path", "use", "rect", "link"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.loaded, self.ids = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loaded += [value for name, value in attrs if name in {"src", "href", "xlink:href"}]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_files_of_the_report():
    files = built(study())
    assert sorted(files) == [
        "figures/accuracy.svg",
        "figures/claim-costs-accuracy.svg",
        "figures/claim-modest-training-helps.svg",
        "figures/claim-more-concise.svg",
        "figures/claim-more-stable.svg",
        "figures/claim-not-more-relevant.svg",
        "figures/claim-plausibility-is-blind.svg",
        "figures/claim-plausible-maps-mislead.svg",
        "figures/claims.svg",
        "figures/matrix-pgd-l2.svg",
        "figures/matrix-pgd-linf.svg",
        "figures/metric-gini.svg",
        "figures/metric-mass.svg",
        "figures/metric-sensitivity.svg",
        "figures/plausible-auroc.svg",
        "figures/plausible-misleading.svg",
        "figures/plausible-rate.svg",
        "figures/security-l2.svg",
        "figures/security-linf.svg",
        "figures/trade-off-gini.svg",
        "figures/trade-off-mass.svg",
        "figures/trade-off-sensitivity.svg",
        "figures/training.svg",
        "index.html",
    ]
    for name, content in files.items():
        if name.endswith(".svg"):
            assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"


def test_the_page_loads_nothing_and_its_ids_are_unique():
    page = Page(built(study())["index.html"].decode())
    assert page.tags.count("script") == 1
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.loaded)
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.loaded if address.startswith("#")} <= set(page.ids)
    assert page.tags.count("svg") == 12 + 7 + 3 + 2 * 3  # claims, plausible maps, swatches of two legends


def test_whatever_comes_from_data_is_escaped():
    inputs = study(label=EVIL)
    facts = {"metrics": dict(inputs.facts["metrics"]), "attributions": dict(inputs.facts["attributions"])}
    facts["metrics"]["gini"] = METRICS["gini"] | {"label": EVIL, "family": EVIL, "source": EVIL}
    facts["attributions"]["gradient"] = {"kind": "method", "label": f"--> {EVIL} $", "source": EVIL}
    attacks = inputs.attacks.replace({"split": {"test_without_cue": EVIL}, "broken_by": {"apgd_t": EVIL}})
    bad = gate(0.5, EVIL) | {"flags": ["gap", EVIL]}
    gates = inputs.gates | {(8.0, 1): bad | {"checks": [check | {"source": EVIL} for check in bad["checks"]]}}
    html = built(replace(inputs, facts=facts, attacks=attacks, gates=gates))["index.html"].decode()
    assert EVIL not in html
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;" in html
    assert "Made up &amp; &lt;small&gt;" in html
    assert Page(html).tags.count("script") == 1


def test_same_rows_same_bytes_in_another_process():
    program = (
        "import hashlib, sys, tests.unit.test_reporting_report as t\n"
        "files = t.built(t.study(images=5))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "print(*sorted(name + hashlib.sha256(content).hexdigest() for name, content in files.items()), sep='\\n')"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed, "TZ": zone, "PYTHONPATH": "src:."},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, zone in [("1", "Asia/Tokyo"), ("2", "UTC")]
    ]
    assert runs[0] == runs[1] != ""


def test_figures_leave_the_process_wide_settings_alone():
    import matplotlib

    settings = [key for key in matplotlib.rcParams if key != "backend"]  # to read the backend would choose one
    before = {key: matplotlib.rcParams[key] for key in settings}
    built(study(images=5))
    assert {key: matplotlib.rcParams[key] for key in settings} == before


@pytest.mark.parametrize(
    "parts",
    [
        {"masks": False},
        {"epsilons": (0.0,)},
        {"epsilons": (4.0,), "seeds": (3,), "images": 1, "masks": False, "pictures": 0},
        {"seeds": (0,)},
        {"pictures": 0},
        {"epsilons": (0.0, 0.01, 0.05, 5.0)},
    ],
    ids=["no masks", "one epsilon", "least", "one seed", "no gallery", "uneven epsilons"],
)
def test_parts_may_be_missing(parts):
    Page(built(study(**parts))["index.html"].decode())


def test_no_history_no_attack_and_no_common_image():
    inputs = study()
    scores = inputs.scores.assign(correct=inputs.scores["image"] % 4 == inputs.scores["epsilon"] // 2)
    files = built(
        replace(inputs, histories={}, attacks=inputs.attacks[inputs.attacks["attack"] == "clean"], scores=scores)
    )
    assert "figures/training.svg" not in files
    assert not [name for name in files if "matrix" in name or "security" in name]
    assert "figures/trade-off-gini.svg" not in files
    assert "headline set is empty" in files["index.html"].decode()


def test_the_page_says_what_one_seed_and_missing_masks_cannot_show():
    html = built(study(seeds=(0,), masks=False))["index.html"].decode()
    assert "One seed: the intervals hold for these very networks" in html
    assert "Undefined on every image (relevance needs masks): Relevance mass" in html
    assert "4 training ε × 1 seed = 4 networks" in html
    assert "One training ε" in built(study(epsilons=(0.0,)))["index.html"].decode()


def test_pictures_reach_the_page_unchanged():
    inputs = study()
    html = built(inputs)["index.html"].decode()
    assert html.count("data:image/png;base64,") == 2 * (1 + 3 * 4)
    assert "✗&nbsp;ring" in html
    assert "✓&nbsp;" in html


def test_a_headline_that_was_not_scored_is_an_error_that_lists_the_scored():
    config = CONFIG.model_copy(update={"metrics": ("gini", "ginny"), "attribution": "lrp"})
    with pytest.raises(ConfigError) as caught:
        tabulate(study(images=2), config)
    assert "report.metrics: found 'ginny', scored are gini, sensitivity, mass" in str(caught.value)
    assert "report.attribution: found 'lrp'" in str(caught.value)
    with pytest.raises(ConfigError, match=r"attack.epsilon: found 3, attacked with \[2.0, 8.0, 128.0\] in linf"):
        tabulate(replace(study(images=2), budget=3.0), CONFIG)
    with pytest.raises(ConfigError, match=r"found 2, attacked with \[0.5, 8.0\] in l2"):  # 2 is a budget in linf alone
        tabulate(replace(study(images=2), budget=2.0, norm="l2"), CONFIG)


def test_a_score_without_facts_is_an_error():
    inputs = study(images=2)
    facts = {"metrics": {"gini": METRICS["gini"]}, "attributions": inputs.facts["attributions"]}
    with pytest.raises(DataError, match="no facts for the metrics sensitivity, mass"):
        tabulate(replace(inputs, facts=facts), CONFIG)


def test_tables_are_json_with_nothing_but_flat_rows():
    tables = tabulate(study(masks=False), CONFIG)
    for rows in (
        tables.accuracy,
        tables.networks,
        tables.gate,
        tables.broken,
        tables.quality,
        tables.headline,
        tables.curves,
    ):
        assert rows
        json.dumps(rows)
        assert all(isinstance(value, str | int | float | bool | None) for row in rows for value in row.values())


def test_the_room_needs_no_torch():
    program = (
        "import sys, epsilens.reporting.report, epsilens.reporting.config\n"
        "assert not {'torch', 'mlflow', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": "src"}, cwd=ROOT, check=True)
