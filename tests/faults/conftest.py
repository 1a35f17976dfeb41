from tests.worker.conftest import memory_site, site, sqlite_site

__all__ = ["memory_site", "site", "sqlite_site"]
