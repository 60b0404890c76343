# Calls operations with boto3: one request a line on standard input, one answer
# a line on standard output, both JSON (see call and answer in driver_test.go).
import datetime, json, sys

import boto3, botocore
from botocore.config import Config

endpoint = sys.argv[1]


def client(call):
    signature = botocore.UNSIGNED if call["unsigned"] else None
    return boto3.client(
        "appmesh", endpoint_url=endpoint, region_name=call["region"], aws_access_key_id=call["key"],
        aws_secret_access_key=call["secret"], config=Config(retries={"total_max_attempts": 1}, signature_version=signature))


def plain(value):
    if isinstance(value, datetime.datetime):
        assert value.tzinfo is not None, "a time without a zone"
        return round(value.timestamp() * 1000)
    raise TypeError(f"{value!r} is not JSON")


def answer(call):
    c = client(call)
    requests = []
    c.meta.events.register("before-send", lambda **_: requests.append(1))
    operation = botocore.xform_name(call["operation"])
    if call["presign"]:
        return {"url": c.generate_presigned_url(operation, Params=call["input"], ExpiresIn=60)}
    try:
        if call["pageSize"]:
            pages = c.get_paginator(operation).paginate(**call["input"], PaginationConfig={"PageSize": call["pageSize"]})
            out, meta = pages.build_full_result(), {"HTTPStatusCode": 200, "RequestId": "of no single one"}
        else:
            out = getattr(c, operation)(**call["input"])
            meta = out.pop("ResponseMetadata")
        return {"output": out, "status": meta["HTTPStatusCode"], "request": meta["RequestId"], "pages": len(requests)}
    except botocore.exceptions.ClientError as e:
        meta, error = e.response["ResponseMetadata"], e.response["Error"]
        known = getattr(c.exceptions, error["Code"], None) if error["Code"] in dir(c.exceptions) else None
        return {"error": {"code": error["Code"], "message": error["Message"], "typed": known is not None and type(e) is known},
                "status": meta["HTTPStatusCode"], "request": meta["RequestId"], "pages": len(requests)}


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line)), default=plain), flush=True)
