# Drives the test server's acm and acm-pca with boto3 and prints what it read.
# With a fourth argument, Private CA is spoken to in CBOR, as later versions of
# botocore may by themselves.
import datetime, json, sys
import boto3, botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

url, key, secret, *cbor = sys.argv[1:]
core = botocore.session.get_session()
if cbor:
    loader = core.get_component("data_loader")
    load = loader.load_service_model

    def forced(*args, **kwargs):
        model = load(*args, **kwargs)
        if "metadata" in model:
            model["metadata"].update(protocol="smithy-rpc-v2-cbor", protocols=["smithy-rpc-v2-cbor"])
        return model

    loader.load_service_model = forced
session = boto3.Session(botocore_session=core, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret)


def client(name):
    c = session.client(name, endpoint_url=url, config=Config(retries={"total_max_attempts": 1}))
    types = set()
    c.meta.events.register("before-send.*.*", lambda request, **_: types.add(request.headers["Content-Type"].decode()
                           if isinstance(request.headers["Content-Type"], bytes) else request.headers["Content-Type"]))
    return c, types


def show(name, call, **arguments):
    try:
        out = call(**arguments)
        meta = out.pop("ResponseMetadata")
        assert meta["HTTPStatusCode"] == 200 and len(meta["HTTPHeaders"]["x-amzn-requestid"]) == 36, meta
        print(name, json.dumps(out, sort_keys=True, default=lambda t: t.astimezone(datetime.timezone.utc).isoformat()))
    except ClientError as e:
        meta = e.response["ResponseMetadata"]
        assert len(meta["RequestId"]) == 36, meta
        print(name, type(e).__name__, meta["HTTPStatusCode"], e.response["Error"]["Code"], e.response["Error"]["Message"])


CA = "arn:aws:acm-pca:us-east-1:000000000000:certificate-authority/11111111-2222-4333-8444-555555555555"
CERTIFICATE = "arn:aws:acm:us-east-1:000000000000:certificate/11111111-2222-4333-8444-555555555555"

pca, types = client("acm-pca")
show("issue", pca.issue_certificate, CertificateAuthorityArn=CA, Csr=b"\x00\xff-csr", SigningAlgorithm="SHA256WITHECDSA", Validity={"Type": "DAYS", "Value": 30},
     ApiPassthrough={"Extensions": {"KeyUsage": {"DigitalSignature": True, "CRLSign": False}, "SubjectAlternativeNames": [{"DnsName": "é.example.com"}]}})
show("revoke", pca.revoke_certificate, CertificateAuthorityArn=CA, CertificateSerial="0a:0b", RevocationReason="SUPERSEDED")
show("list", pca.list_certificate_authorities)
show("policy", pca.get_policy, ResourceArn=CA)
show("internal", pca.delete_policy, ResourceArn=CA)
show("panic", pca.list_tags, CertificateAuthorityArn=CA)
show("invalid", pca.revoke_certificate, CertificateAuthorityArn=CA, CertificateSerial="0a", RevocationReason="HOLD")
print("types", sorted(types))
if cbor:
    sys.exit()

acm, types = client("acm")
show("request", acm.request_certificate, DomainName="*.apps.example", SubjectAlternativeNames=["*.apps.example", "b.example"], CertificateAuthorityArn=CA,
     IdempotencyToken="t_1", Tags=[{"Key": "é", "Value": ""}, {"Key": "k"}], Options={"CertificateTransparencyLoggingPreference": "DISABLED"})
show("describe", acm.describe_certificate, CertificateArn=CERTIFICATE)
show("export", acm.export_certificate, CertificateArn=CERTIFICATE, Passphrase=b"sesame")
show("early", acm.export_certificate, CertificateArn=CERTIFICATE, Passphrase=b"none")
show("import", acm.import_certificate, Certificate=b"cert", PrivateKey=b"key\x00", CertificateChain=b"chain", CertificateArn=CERTIFICATE)
show("list", acm.list_certificates, Includes={"keyTypes": ["EC_prime256v1"]}, NextToken="a+b/c=é", MaxItems=7)
show("search", acm.search_certificates, FilterStatement={"Not": {"Filter": {"X509AttributeFilter": {"NotBefore": {"Start": datetime.datetime(2026, 11, 23, 12, 0, 0, 500000, datetime.timezone.utc)}}}}})
show("account", acm.get_account_configuration)
show("delete", acm.delete_certificate, CertificateArn=CERTIFICATE)
show("in use", acm.delete_certificate, CertificateArn=CERTIFICATE + "/used")
show("invalid", acm.request_certificate, DomainName="localhost")
print("types", sorted(types))
