"""The worker, on Huey: jobs are Huey tasks, threads are Huey's, and the store is ours."""
