"""The basic types: tasks, stages, resources, and the ids that say where a task comes from."""
