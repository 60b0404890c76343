# Walks through the life of two authorities and a certificate with boto3, in
# JSON or, with the argument cbor, in CBOR. What openssl is to check is written
# into the folder given first.
import pathlib, subprocess, sys, uuid
import boto3, botocore.session
from botocore.exceptions import ClientError

folder = pathlib.Path(sys.argv[1])
core = botocore.session.get_session()
if "cbor" in sys.argv:
    loader = core.get_component("data_loader")
    load = loader.load_service_model

    def forced(*args, **kwargs):
        model = load(*args, **kwargs)
        if "metadata" in model:
            model["metadata"].update(protocol="smithy-rpc-v2-cbor", protocols=["smithy-rpc-v2-cbor"])
        return model

    loader.load_service_model = forced
pca = boto3.Session(botocore_session=core).client("acm-pca")
sent = set()
pca.meta.events.register("before-send.*.*", lambda request, **_: sent.add(str(request.headers["Content-Type"])))


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as e:
        assert e.response["Error"]["Code"] == code, e
        assert type(e) is not ClientError, f"{code} is not an exception of the model"
    else:
        raise AssertionError(f"{call} did not end in {code}")


def create(kind, name, algorithm, signing):
    arn = pca.create_certificate_authority(
        CertificateAuthorityType=kind, IdempotencyToken=f"{name}-{uuid.uuid4().hex[:8]}",
        CertificateAuthorityConfiguration={"KeyAlgorithm": algorithm, "SigningAlgorithm": signing, "Subject": {"CommonName": name, "Country": "DE"}},
        RevocationConfiguration={"CrlConfiguration": {"Enabled": True, "ExpirationInDays": 7, "S3BucketName": "none"}, "OcspConfiguration": {"Enabled": True}},
        Tags=[{"Key": "team", "Value": "mesh"}])["CertificateAuthorityArn"]
    pca.get_waiter("certificate_authority_csr_created").wait(CertificateAuthorityArn=arn, WaiterConfig={"Delay": 1})
    return arn, pca.get_certificate_authority_csr(CertificateAuthorityArn=arn)["Csr"].encode()


def issue(arn, csr, template, days, signing):
    certificate = pca.issue_certificate(CertificateAuthorityArn=arn, Csr=csr, SigningAlgorithm=signing, TemplateArn=f"arn:aws:acm-pca:::template/{template}/V1",
                                        Validity={"Type": "DAYS", "Value": days})["CertificateArn"]
    pca.get_waiter("certificate_issued").wait(CertificateAuthorityArn=arn, CertificateArn=certificate)
    return certificate, pca.get_certificate(CertificateAuthorityArn=arn, CertificateArn=certificate)


def status(arn):
    return pca.describe_certificate_authority(CertificateAuthorityArn=arn)["CertificateAuthority"]["Status"]


root, csr = create("ROOT", "root", "RSA_2048", "SHA256WITHRSA")
assert status(root) == "PENDING_CERTIFICATE"
refused("InvalidStateException", pca.get_certificate_authority_certificate, CertificateAuthorityArn=root)
_, own = issue(root, csr, "RootCACertificate", 3650, "SHA384WITHRSA")
assert "CertificateChain" not in own
pca.import_certificate_authority_certificate(CertificateAuthorityArn=root, Certificate=own["Certificate"].encode())
assert status(root) == "ACTIVE"

issuing, csr = create("SUBORDINATE", "issuing", "EC_secp384r1", "SHA384WITHECDSA")
_, sub = issue(root, csr, "SubordinateCACertificate_PathLen0", 1825, "SHA256WITHRSA")
refused("CertificateMismatchException", pca.import_certificate_authority_certificate, CertificateAuthorityArn=issuing,
        Certificate=own["Certificate"].encode(), CertificateChain=own["Certificate"].encode())
pca.import_certificate_authority_certificate(CertificateAuthorityArn=issuing, Certificate=sub["Certificate"].encode(), CertificateChain=sub["CertificateChain"].encode())
refused("MalformedCSRException", issue, arn=issuing, csr=b"x", template="EndEntityCertificate", days=1, signing="SHA384WITHECDSA")

subprocess.run(["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "leaf.key", "-out", folder / "leaf.csr", "-subj", "/CN=web.example.com",
                "-addext", "subjectAltName=DNS:web.example.com,URI:spiffe://mesh/web"], check=True, capture_output=True)
arn, leaf = issue(issuing, (folder / "leaf.csr").read_bytes(), "EndEntityServerAuthCertificate", 30, "SHA256WITHECDSA")
for name, text in [("root", own["Certificate"]), ("issuing", sub["Certificate"]), ("leaf", leaf["Certificate"]), ("chain", leaf["CertificateChain"])]:
    assert not text.endswith("\n"), name
    (folder / f"{name}.pem").write_text(text + "\n")

if "revoke" in sys.argv:
    serial = arn.rsplit("/", 1)[1].lstrip("0")
    pca.revoke_certificate(CertificateAuthorityArn=issuing, CertificateSerial=serial, RevocationReason="KEY_COMPROMISE")
    refused("RequestAlreadyProcessedException", pca.revoke_certificate, CertificateAuthorityArn=issuing, CertificateSerial=serial, RevocationReason="KEY_COMPROMISE")
pca.get_certificate(CertificateAuthorityArn=issuing, CertificateArn=arn)

report = pca.create_certificate_authority_audit_report(CertificateAuthorityArn=issuing, S3BucketName="none", AuditReportResponseFormat="JSON")
pca.get_waiter("audit_report_created").wait(CertificateAuthorityArn=issuing, AuditReportId=report["AuditReportId"], WaiterConfig={"Delay": 1})

permission = dict(CertificateAuthorityArn=issuing, Principal="acm.amazonaws.com", Actions=["IssueCertificate", "GetCertificate", "ListPermissions"])
pca.create_permission(**permission)
refused("PermissionAlreadyExistsException", pca.create_permission, **permission)
assert [p["Principal"] for p in pca.list_permissions(CertificateAuthorityArn=issuing)["Permissions"]] == ["acm.amazonaws.com"]
pca.delete_permission(CertificateAuthorityArn=issuing, Principal="acm.amazonaws.com")

pca.tag_certificate_authority(CertificateAuthorityArn=issuing, Tags=[{"Key": "more"}])
pca.untag_certificate_authority(CertificateAuthorityArn=issuing, Tags=[{"Key": "team"}])
assert [t["Key"] for t in pca.list_tags(CertificateAuthorityArn=issuing)["Tags"]] == ["more"]

refused("ResourceNotFoundException", pca.get_policy, ResourceArn=issuing)
refused("InvalidPolicyException", pca.put_policy, ResourceArn=issuing, Policy="{}")
pca.delete_policy(ResourceArn=issuing)

every = [a["Arn"] for page in pca.get_paginator("list_certificate_authorities").paginate(PaginationConfig={"PageSize": 1}) for a in page["CertificateAuthorities"]]
assert {root, issuing} <= set(every) and len(every) == len(set(every)), every

if "delete" in sys.argv:
    refused("InvalidStateException", pca.delete_certificate_authority, CertificateAuthorityArn=issuing)
    for _ in range(2):  # as Terraform does
        pca.update_certificate_authority(CertificateAuthorityArn=issuing, Status="DISABLED")
    refused("InvalidStateException", issue, arn=issuing, csr=(folder / "leaf.csr").read_bytes(), template="EndEntityCertificate", days=1, signing="SHA384WITHECDSA")
    pca.delete_certificate_authority(CertificateAuthorityArn=issuing, PermanentDeletionTimeInDays=7)
    described = pca.describe_certificate_authority(CertificateAuthorityArn=issuing)["CertificateAuthority"]
    assert described["Status"] == "DELETED" and (described["RestorableUntil"] - described["LastStateChangeAt"]).days == 7, described
    pca.restore_certificate_authority(CertificateAuthorityArn=issuing)
    assert status(issuing) == "DISABLED"
    pca.update_certificate_authority(CertificateAuthorityArn=issuing, Status="ACTIVE")
assert len(sent) == 1 and ("cbor" in sent.pop()) == ("cbor" in sys.argv), sent
