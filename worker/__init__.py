"""The GPU tier: leases jobs, runs their pipelines, stores the pictures. Only here is torch."""
