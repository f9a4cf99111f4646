"""Run Curator pipelines on Ray Data and Cosmos-Xenna."""
