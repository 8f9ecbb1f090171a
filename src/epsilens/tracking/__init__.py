"""The mirror of the pipeline's states in MLflow. The only room that knows MLflow, and nothing reads what it writes."""
