"""A small web application: one page, one health check."""

import os

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello() -> str:
    return f"{os.environ.get('GREETING', 'Hello from Minuet')}\n"


@app.get("/healthz")
def health() -> dict[str, str]:
    return {"status": "ok"}
