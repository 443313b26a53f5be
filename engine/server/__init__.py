"""The task API over HTTP, on one's own machine: data sets, tasks in worker processes, samples, models, services.

    problems.py     what a request may be answered instead: codes and words
    database.py     tokens, data sets, tasks, services: SQLite
    datasets.py     a registered data set as it stands: its manifest, and how results land in it
    checks.py       what is refused before a task is queued
    worker.py       one task in a process of its own
    queue.py        which task runs when, and what becomes of it
    answers.py      tasks and data sets as the service answers them
    inferring.py    models in processes that answer what is on an image
    services.py     what was deployed, opened when it is asked
    wire.py         what every route shares: ids, tokens, bodies, problems
    *_routes.py     the routes of data sets, tasks, samples, services
    manual.py       the page at /docs, made from the OpenAPI document
    app.py          all of them together; one service alone

Needs the extra `server` (`pip install '.[server]'` in the folder of labelengine). A task lives in HOME/tasks/ID, a data
set in HOME/datasets/ID; the data that were registered stay as they are.
"""
