"""The Python client of Darkroom's HTTP API; needs the extra ``cli``.

::

    from darkroom.client import Client

    with Client("http://127.0.0.1:8080") as client:
        job = client.wait(client.submit("a blue square on a yellow background").id)
        png = client.image(job.id)

`AsyncClient` is the same for asyncio. Calls are sent again when the connection fails and on 429
and 503 (`Retries`); a submit carries an idempotency key, so that this makes no second job.
"""

from darkroom.client.asynchronous import AsyncClient
from darkroom.client.http import Client
from darkroom.client.problems import DarkroomClientError, ServerUnreachable
from darkroom.client.reports import (
    DeadLetterDetail,
    DeadLetterView,
    ResubmitOutcome,
    UsageReport,
)
from darkroom.client.retries import Retries
from darkroom.client.views import ImageView, JobPage, JobView, ModelView

__all__ = [
    "AsyncClient",
    "Client",
    "DarkroomClientError",
    "DeadLetterDetail",
    "DeadLetterView",
    "ImageView",
    "JobPage",
    "JobView",
    "ModelView",
    "ResubmitOutcome",
    "Retries",
    "ServerUnreachable",
    "UsageReport",
]
