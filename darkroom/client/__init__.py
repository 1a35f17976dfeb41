"""The Python client of Darkroom's HTTP API; needs the extra ``cli``.

::

    from darkroom.client import Client

    with Client("http://127.0.0.1:8080") as client:
        job = client.wait(client.submit("a blue square on a yellow background").id)
        png = client.image(job.id)
"""

from darkroom.client.http import Client
from darkroom.client.problems import DarkroomClientError, ServerUnreachable
from darkroom.client.reports import (
    DeadLetterDetail,
    DeadLetterView,
    ResubmitOutcome,
    UsageReport,
)
from darkroom.client.views import ImageView, JobPage, JobView, ModelView

__all__ = [
    "Client",
    "DarkroomClientError",
    "DeadLetterDetail",
    "DeadLetterView",
    "ImageView",
    "JobPage",
    "JobView",
    "ModelView",
    "ResubmitOutcome",
    "ServerUnreachable",
    "UsageReport",
]
