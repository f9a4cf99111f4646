"""From names and files to stages, executors, pipelines and workflows."""
