"""What a request may be answered instead of what it asked for: a status, `error_code` and `error_msg` (task API)."""

from __future__ import annotations


class Problem(Exception):
    """An answer that is none. status: of HTTP. code: one of those below. message: for a person."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def body(self) -> dict[str, str]:
        return {"error_code": self.code, "error_msg": self.message}


BAD_REQUEST = "LE.4000"
NO_LABELS = "LE.4001"
FEW_IMAGES = "LE.4002"
NOTHING_UNLABELED = "LE.4003"
N_CLUSTERS = "LE.4004"
ALREADY_RUNNING = "LE.4005"
NOT_RUNNING = "LE.4006"
NAME_TAKEN = "LE.4007"
OUTSIDE_ROOTS = "LE.4008"
NOT_STOPPED = "LE.4009"
NO_TOKEN = "LE.4010"
OTHER_PROJECT = "LE.4030"
NO_DATASET = "LE.4040"
NO_TASK = "LE.4041"
NO_SAMPLE = "LE.4042"
NO_SERVICE = "LE.4043"
NO_PLACE = "LE.4044"
TOO_LARGE = "LE.4130"
INTERNAL = "LE.5000"
NO_ROOM = "LE.5070"

#: Every code in words, for the README and the OpenAPI document.
MEANINGS: dict[str, str] = {
    BAD_REQUEST: "the request cannot be meant: error_msg says where, what was expected and what came",
    NO_LABELS: "auto labeling needs at least two labels that people gave",
    FEW_IMAGES: "auto labeling needs every label on at least five images",
    NOTHING_UNLABELED: "there is no unlabeled image",
    N_CLUSTERS: "n_clusters must be 2 to 200, and at most the number of images",
    ALREADY_RUNNING: "the same task is queued or running already",
    NOT_RUNNING: "the task has ended: it cannot be stopped",
    NAME_TAKEN: "the project has a data set of this name",
    NOT_STOPPED: "the task has neither stopped nor failed: it cannot go on",
    OUTSIDE_ROOTS: "the path lies outside the folders that this server may read",
    NO_TOKEN: "X-Auth-Token is missing or unknown",
    OTHER_PROJECT: "the token belongs to another project",
    NO_DATASET: "there is no such data set",
    NO_TASK: "there is no such task",
    NO_SAMPLE: "there is no such sample",
    NO_SERVICE: "there is no such service",
    NO_PLACE: "there is nothing at this address",
    TOO_LARGE: "the body is larger than this server takes",
    INTERNAL: "something went wrong here; the log of the server says what",
    NO_ROOM: "what was to be kept cannot be written here",
}
