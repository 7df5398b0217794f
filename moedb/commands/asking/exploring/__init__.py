"""A store in the browser: the views of reports, made while they are looked at.

Requests come in through ``http``, whose guard lets pass only the browser that was given the
address; ``open_store`` has the snapshot and what was answered over it, and ``workers`` the
databases, each used by one thread at a time. What is answered is what
``moedb.queries.report.pages`` puts into a file. Only ``http`` knows of starlette and uvicorn.
"""
