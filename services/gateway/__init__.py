"""The door and the windows: one process that speaks HTTP to people and Redis Streams to the pipeline."""
