# Drives the test server with boto3 and prints what it returned, one JSON line
# per call: the wire shape as a real client sees it.
import json, sys
import boto3, botocore
from botocore.config import Config

endpoint, key, secret = sys.argv[1:4]


def client(region="us-east-1", key=key, secret=secret, token=None):
    return boto3.client("appmesh", endpoint_url=endpoint, region_name=region, aws_access_key_id=key,
                        aws_secret_access_key=secret, aws_session_token=token, config=Config(retries={"max_attempts": 1}))


def show(name, call, **arguments):
    try:
        out = call(**arguments)
        meta = out.pop("ResponseMetadata")
        assert meta["HTTPStatusCode"] == 200 and len(meta["RequestId"]) == 36, meta
        print(name, json.dumps(out, sort_keys=True, default=lambda t: t.isoformat()))
    except botocore.exceptions.ClientError as e:
        meta = e.response["ResponseMetadata"]
        assert len(meta["RequestId"]) == 36, meta
        print(name, type(e).__name__, meta["HTTPStatusCode"], e.response["Error"]["Code"], e.response["Error"]["Message"])


c = client()
show("create", c.create_mesh, meshName="a/b", spec={"egressFilter": {"type": "ALLOW_ALL"}}, tags=[{"key": "k", "value": ""}])
for name in ["a/b", "my mesh", "a+b:c", "é~*", "a%2Fb", "..."]:
    show("describe", lambda **a: {"mesh": (o := c.describe_mesh(**a))["mesh"]["meshName"], "ResponseMetadata": o["ResponseMetadata"]}, meshName=name)
show("node", lambda **a: {"node": (o := c.describe_virtual_node(**a))["virtualNode"]["meshName"] + "|" + o["virtualNode"]["virtualNodeName"], "ResponseMetadata": o["ResponseMetadata"]},
     meshName="a+b:c", virtualNodeName="my/no de", meshOwner="111111111111")
show("list", c.list_meshes, nextToken="a b+c/d=e&f", limit=7)
show("tags", c.list_tags_for_resource, resourceArn="arn:aws:appmesh:us-east-1:000000000000:mesh/a/b")
show("tag", c.tag_resource, resourceArn="arn:aws:appmesh:us-east-1:000000000000:mesh/x", tags=[{"key": "é", "value": "ü"}])
show("absent", c.describe_mesh, meshName="absent")
show("invalid", c.create_virtual_node, meshName="m", virtualNodeName="n" * 256, spec={"listeners": [{"portMapping": {"port": 70000, "protocol": "udp"}}]})
show("panic", c.delete_mesh, meshName="x")
show("region", client(region="eu-west-1").list_meshes)
show("secret", client(secret="wrong").list_meshes)
show("key", client(key="FLNOBODY").list_meshes)
show("token", client(token="token").list_meshes)
show("store", client(key="FLBROKEN").list_meshes)

url = c.generate_presigned_url("describe_mesh", Params={"meshName": "a/b"}, ExpiresIn=60)
import urllib.request
with urllib.request.urlopen(url) as answer:
    print("presigned", json.load(answer)["meshName"])
