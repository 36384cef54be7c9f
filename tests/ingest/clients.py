"""What real clients of error trackers are made to do: one run each, in an interpreter that has them.

Run as ``python clients.py CLIENT PORT`` with a clean environment, since some clients send all of it.
"""

# ruff: noqa: ANN001, ANN201, ARG001, T201
# mypy: ignore-errors

import sys


class OrderError(Exception):
    pass


def inner(number, secret="hunter2"):
    prices = {"apple": 1}
    return prices["pear"] if not number else inner(number - 1)


def boom():
    try:
        inner(2)
    except KeyError as e:
        raise OrderError("order 7 failed") from e


def sentry(port):
    import sentry_sdk

    sentry_sdk.init(
        dsn=f"http://abcdef0123456789abcdef0123456789@127.0.0.1:{port}/42",
        release="app@1.2.3",
        environment="prod",
        send_default_pii=True,
    )
    sentry_sdk.set_tag("tier", "gold")
    sentry_sdk.set_user({"id": "7", "email": "a@example.com"})
    try:
        boom()
    except OrderError:
        sentry_sdk.capture_exception()
    with sentry_sdk.new_scope() as scope:
        scope.fingerprint = ["{{ default }}", "tenant-1"]
        scope.add_attachment(bytes=b"hello log", filename="a.log", content_type="text/plain")
        sentry_sdk.capture_message("plain message 99")
    sentry_sdk.flush(10)


def rollbar(port):
    import rollbar

    rollbar.init(
        "aaaabbbbccccddddeeeeffff00001111",
        "production",
        endpoint=f"http://127.0.0.1:{port}/api/1/",
        handler="blocking",
        locals={"enabled": True},
        code_version="b6437f45",
        root=__file__.rpartition("/")[0],
    )
    try:
        boom()
    except OrderError:
        rollbar.report_exc_info(
            extra_data={"tier": "gold"},
            payload_data={"person": {"id": "7"}, "fingerprint": "mine", "custom": {"tier": "gold"}},
        )
    rollbar.report_message("User logged in", "warning", extra_data={"lucky_numbers": [4, 8]})


def backtrace(port):
    import backtracepython

    backtracepython.initialize(
        endpoint=f"http://127.0.0.1:{port}/acme/685f2e33a75f0f4623584389/json",
        token="685f2e33a75f0f4623584389",
        attributes={"tier": "gold"},
    )
    try:
        boom()
    except OrderError:
        backtracepython.send_last_exception(attributes={"order": 7})
    backtracepython.finalize()


def posthog(port):
    from posthog import Posthog

    client = Posthog("phc_testtoken", host=f"http://127.0.0.1:{port}", enable_exception_autocapture=False)
    try:
        boom()
    except OrderError as e:
        client.capture_exception(e, distinct_id="u1", properties={"tier": "gold", "$exception_fingerprint": "mine"})
    client.flush()
    client.shutdown()


if __name__ == "__main__":
    try:
        {"sentry": sentry, "rollbar": rollbar, "backtrace": backtrace, "posthog": posthog}[sys.argv[1]](
            int(sys.argv[2])
        )
    except ImportError as e:
        print(e)
        sys.exit(77)
