# Calls operations with the AWS CLI, as boto3_driver.py does with boto3. It is
# the CLI's own main, run again and again in one process: to start Python and
# load the models takes longer than a call. Status, request ids and the number of
# requests, which the CLI does not print, come from its own session.
import contextlib, functools, io, json, re, sys

from awscli.clidriver import create_clidriver
from botocore import xform_name

endpoint = sys.argv[1]
responses = []


@functools.cache
def driver_of(key, secret, unsigned):
    driver = create_clidriver()
    driver.session.set_credentials(key, secret)
    driver.session.register("after-call.app-mesh", lambda parsed, **_: responses.append(parsed["ResponseMetadata"]))
    return driver


def option(name, value):
    flag = "--" + xform_name(name, "-")
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return [flag, *value]
    return [flag + "=" + (value if isinstance(value, str) else json.dumps(value))]


def arguments(call):
    out = ["appmesh", xform_name(call["operation"], "-"), "--output", "json", "--endpoint-url", endpoint, "--region", call["region"]]
    for name, value in call["input"].items():
        out += option(name, value)
    if call["unsigned"]:
        out.append("--no-sign-request")
    if call["pageSize"]:
        out += ["--page-size", str(call["pageSize"])]
    elif call["operation"].startswith("List"):
        out.append("--no-paginate")
    return out


def milliseconds(value):
    if isinstance(value, list):
        return [milliseconds(v) for v in value]
    if not isinstance(value, dict):
        return value
    for name in ("createdAt", "lastUpdatedAt"):
        if name in value:
            # The CLI prints a time as the server sent it.
            assert isinstance(value[name], float), f"{name} is {value[name]!r}, not a number with a fraction"
            value[name] = round(value[name] * 1000)
    return {name: milliseconds(v) for name, v in value.items()}


def answer(call):
    responses.clear()
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = driver_of(call["key"], call["secret"], call["unsigned"]).main(arguments(call))
    if not responses:
        raise RuntimeError(f"aws {arguments(call)} sent nothing: {errors.getvalue()}")
    got = {"status": responses[-1]["HTTPStatusCode"], "request": responses[-1]["RequestId"], "pages": len(responses)}
    if code == 0:
        # TagResource and UntagResource have no output, and the CLI prints nothing.
        return got | {"output": milliseconds(json.loads(out.getvalue() or "{}"))}
    said = re.fullmatch(r"\s*(?:aws: \[ERROR\]: )?An error occurred \((\w+)\) when calling the (\w+) operation(?: \(reached max retries: \d+\))?: (.*?)\s*", errors.getvalue(), re.DOTALL)
    if not said or said[2] != call["operation"]:
        raise RuntimeError(f"aws {arguments(call)} exited {code}: {errors.getvalue()}")
    return got | {"error": {"code": said[1], "message": said[3]}}


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
