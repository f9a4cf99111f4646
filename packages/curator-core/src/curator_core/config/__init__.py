"""How do names and files become stages, executors, pipelines and workflows?"""
