package server

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

const (
	aCertificate = "arn:aws:acm:eu-west-1:123456789012:certificate/"
	anAuthority  = "arn:aws:acm-pca:eu-west-1:123456789012:certificate-authority/"
	elsewhere    = "arn:aws:acm-pca:eu-west-1:999999999999:certificate-authority/"
)

var ended = time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)

// trustRecords are certificates and authorities in all states, by the ends of
// their ARNs.
func trustRecords() (certificates map[string]store.Certificate, authorities map[string]store.Authority) {
	later := time.Now().AddDate(1, 0, 0)
	issued := store.Certificate{Type: "PRIVATE", Status: "ISSUED", Chain: "leaf", Roots: "root", NotAfter: later}
	with := func(change func(c *store.Certificate)) store.Certificate {
		c := issued
		change(&c)
		return c
	}
	root := func(status string, until time.Time) store.Authority {
		return store.Authority{Account: testAccount, Root: true, Status: status, NotAfter: until, Roots: "root"}
	}
	return map[string]store.Certificate{
			aCertificate + "private":                                issued,
			aCertificate + "imported":                               with(func(c *store.Certificate) { c.Type = "IMPORTED" }),
			aCertificate + "rootless":                               with(func(c *store.Certificate) { c.Type, c.Roots = "IMPORTED", "" }),
			aCertificate + "public":                                 with(func(c *store.Certificate) { c.Type = "AMAZON_ISSUED" }),
			aCertificate + "pending":                                with(func(c *store.Certificate) { c.Status, c.Chain = "PENDING_VALIDATION", "" }),
			aCertificate + "failed":                                 with(func(c *store.Certificate) { c.Status, c.Failure = "FAILED", "PCA_ACCESS_DENIED" }),
			aCertificate + "expired":                                with(func(c *store.Certificate) { c.NotAfter = ended }),
			aCertificate + "revoked":                                with(func(c *store.Certificate) { c.Status = "REVOKED" }),
			"arn:aws:acm:eu-west-1:999999999999:certificate/theirs": issued,
			"arn:aws:acm:us-east-1:123456789012:certificate/far":    issued,
		}, map[string]store.Authority{
			anAuthority + "root":     root("ACTIVE", later),
			anAuthority + "sub":      {Account: testAccount, Status: "ACTIVE", NotAfter: later},
			anAuthority + "pending":  root("PENDING_CERTIFICATE", time.Time{}),
			anAuthority + "disabled": root("DISABLED", later),
			anAuthority + "deleted":  root("DELETED", later),
			anAuthority + "failed":   root("FAILED", time.Time{}),
			anAuthority + "expired":  root("ACTIVE", ended),
			anAuthority + "gone":     {Account: testAccount, Gone: true},
			elsewhere + "kept":       {Account: "999999999999", Root: true, Status: "ACTIVE", NotAfter: later, Roots: "root"},
			elsewhere + "shared":     {Account: "999999999999", Root: true, Status: "ACTIVE", NotAfter: later, Roots: "root", Readers: []string{testAccount}},
		}
}

// makeTrust puts them where ACM and Private CA put theirs.
func makeTrust(t *testing.T, s *store.Store) {
	t.Helper()
	certificates, authorities := trustRecords()
	_, err := s.Write(t.Context(), func(tx *store.Tx) error {
		for arn, c := range certificates {
			c.ARN = arn
			if err := store.PutCertificate(tx, &c, []byte("key")); err != nil {
				return err
			}
		}
		for arn, a := range authorities {
			a.ARN = arn
			if err := store.PutAuthority(tx, &a); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// certificateSpec is a node whose listeners have certificates.
func certificateSpec(arns ...string) string {
	var all []string
	for i, arn := range arns {
		all = append(all, fmt.Sprintf(`{"portMapping":{"port":%d,"protocol":"http"},"tls":{"mode":"STRICT","certificate":{"acm":{"certificateArn":"%s"}}}}`, 8080+i, arn))
	}
	return `{"spec":{"listeners":[` + strings.Join(all, ",") + `],"serviceDiscovery":{"dns":{"hostname":"b"}}}}`
}

// trustSpec is a node whose policy trusts authorities.
func trustSpec(arns ...string) string {
	return `{"spec":{"backendDefaults":{"clientPolicy":{"tls":{"validation":{"trust":{"acm":{"certificateAuthorityArns":["` + strings.Join(arns, `","`) + `"]}}}}}}}}`
}

func certificateCases() []requestCase {
	const bad, missing = "BadRequestException", "NotFoundException"
	const listener, trust = "spec.listeners[0].tls.certificate.acm.certificateArn: the certificate ", "spec.backendDefaults.clientPolicy.tls.validation.trust.acm.certificateAuthorityArns[0]: the certificate authority "
	const client = inM + "/virtualNodes/client"
	var all []requestCase
	add := func(rule, name, arn, code, why string) {
		body, message := certificateSpec(arn), listener
		if strings.HasPrefix(rule, "authority") {
			body, message = trustSpec(arn), trust
		}
		if message += arn + " " + why; code == "" {
			message = ""
		}
		all = append(all, requestCase{rule, name, client, body, code, message})
	}
	for _, rule := range certificateRules {
		add(rule.id, "private", aCertificate+"private", "", "")
	}
	for _, rule := range authorityRules {
		add(rule.id, "a root", anAuthority+"root", "", "")
	}
	add("certificate-arn", "of another region", "arn:aws:acm:us-east-1:123456789012:certificate/far", bad, "is of region us-east-1, and this server's is eu-west-1: a mesh takes those of its own region only")
	add("certificate-arn", "of an authority", anAuthority+"root", bad, "is not of the form arn:aws:acm:eu-west-1:ACCOUNT:certificate/ID")
	add("certificate-arn", "too long", aCertificate+strings.Repeat("x", 300), bad, "")
	all[len(all)-1].message = "is not of the form"
	add("certificate-account", "of another", "arn:aws:acm:eu-west-1:999999999999:certificate/theirs", bad, "is of account 999999999999: a listener's certificate must be of the account of its virtual node or gateway, which is 123456789012")
	add("certificate", "unknown", aCertificate+"none", missing, "does not exist: name one that acm list-certificates shows, or make it with acm request-certificate or import-certificate")
	add("certificate-type", "imported", aCertificate+"imported", "", "")
	add("certificate-type", "public", aCertificate+"public", bad, "is a public certificate (AMAZON_ISSUED), whose key nobody can have: request one of a private authority, or import one")
	add("certificate-issued", "expired", aCertificate+"expired", bad, "is EXPIRED since 2025-01-02T03:04:05Z: renew it, import its successor under the same ARN, or name another")
	add("certificate-issued", "pending", aCertificate+"pending", bad, "is PENDING_VALIDATION: it is not issued yet. Try again when acm describe-certificate says ISSUED")
	add("certificate-issued", "failed", aCertificate+"failed", bad, "is FAILED with PCA_ACCESS_DENIED: it was never issued. Delete it and request another")
	add("certificate-issued", "revoked", aCertificate+"revoked", bad, "is REVOKED: clients refuse it. Name another")
	add("certificate-root", "without", aCertificate+"rootless", bad, "has a chain without a root, so that clients could not validate it: import it again with a CertificateChain up to the root, the root included")

	add("authority-arn", "of a certificate", aCertificate+"private", bad, "is not of the form arn:aws:acm-pca:eu-west-1:ACCOUNT:certificate-authority/ID")
	add("authority-arn", "of another region", strings.Replace(anAuthority, "eu-west-1", "us-east-1", 1)+"root", bad, "is of region us-east-1, and this server's is eu-west-1: a mesh takes those of its own region only")
	add("authority-account", "that shares it", elsewhere+"shared", "", "")
	add("authority-account", "that does not", elsewhere+"kept", bad, "is of account 999999999999, which does not share it with account 123456789012: its owner can, with acm-pca put-policy")
	add("authority-account", "that has none", elsewhere+"none", bad, "is of account 999999999999, which does not share it")
	add("authority", "unknown", anAuthority+"none", missing, "does not exist: name one that acm-pca list-certificate-authorities shows, or make it with acm-pca create-certificate-authority")
	add("authority", "removed", anAuthority+"gone", missing, "does not exist")
	add("authority-root", "a subordinate", anAuthority+"sub", bad, "is a subordinate authority: name the root above it, and certificates of both are trusted")
	add("authority-active", "disabled", anAuthority+"disabled", bad, "is DISABLED: enable it with acm-pca update-certificate-authority --status ACTIVE, or name another root")
	add("authority-active", "expired", anAuthority+"expired", bad, "is EXPIRED since 2025-01-02T03:04:05Z: import a new certificate for it, or name another root")
	add("authority-active", "pending", anAuthority+"pending", bad, "is PENDING_CERTIFICATE: a root is trusted once its certificate is imported, with acm-pca import-certificate-authority-certificate")
	add("authority-active", "deleted", anAuthority+"deleted", bad, "is DELETED: restore it with acm-pca restore-certificate-authority, or name another root")
	add("authority-active", "failed", anAuthority+"failed", bad, "is FAILED, and must be ACTIVE")

	var many []string
	for i := range maxARNs + 1 {
		many = append(many, fmt.Sprintf("%s%d", aCertificate, i))
	}
	return append(all,
		requestCase{"arn-count", "one, often", client, certificateSpec(strings.Split(strings.TrimSuffix(strings.Repeat(aCertificate+"private ", maxARNs+1), " "), " ")...), "", ""},
		requestCase{"arn-count", "many", client, certificateSpec(many...), bad, "spec.listeners[40].tls.certificate.acm.certificateArn: the spec names more than 40 certificates and authorities"},
	)
}

// TestNamedBefore: what a spec named already stays, whatever has become of it;
// another one is looked at.
func TestNamedBefore(t *testing.T) {
	h := newHarness(t)
	h.makeSmallMesh(t)
	makeTrust(t, h.store)
	const node = inM + "/virtualNodes/blue"
	put := func(arn string, change func(c *store.Certificate)) {
		certificates, _ := trustRecords()
		c := certificates[arn]
		c.ARN = arn
		change(&c)
		if _, err := h.store.Write(t.Context(), func(tx *store.Tx) error { return store.PutCertificate(tx, &c, nil) }); err != nil {
			t.Fatal(err)
		}
	}
	h.must(t, "PUT", node, certificateSpec(aCertificate+"private"))
	put(aCertificate+"private", func(c *store.Certificate) { c.Status = "REVOKED" })
	h.must(t, "PUT", node, strings.Replace(certificateSpec(aCertificate+"private"), `"b"`, `"c"`, 1))
	if a := h.send(t, "PUT", node, certificateSpec(aCertificate+"private", aCertificate+"expired"), nil); a.code != "BadRequestException" || !strings.Contains(a.body, "spec.listeners[1].tls.certificate.acm.certificateArn: the certificate "+aCertificate+"expired is EXPIRED") || strings.Contains(a.body, "REVOKED") {
		t.Errorf("got %s %s", a.code, a.body)
	}
	h.must(t, "PUT", node, `{"spec":{}}`)
	if a := h.send(t, "PUT", node, certificateSpec(aCertificate+"private"), nil); !strings.Contains(a.body, "REVOKED") {
		t.Errorf("a revoked certificate that the spec does not name any more: %d %s", a.status, a.body)
	}
}

// TestNamingRacesDeleting: on two servers, specs that name a certificate race
// those who delete it. Never is there a spec that names one that is gone.
func TestNamingRacesDeleting(t *testing.T) {
	servers := newReplicas(t, 2)
	servers[0].makeSmallMesh(t)
	named, deleted := 0, 0
	for i := range 40 {
		makeTrust(t, servers[0].store)
		const arn, node = aCertificate + "private", inM + "/virtualNodes/blue"
		var group errgroup.Group
		var naming answer
		refused := errors.New("in use")
		var deleting error
		group.Go(func() error { naming = servers[i%2].send(t, "PUT", node, certificateSpec(arn), nil); return nil })
		group.Go(func() error {
			_, deleting = servers[1-i%2].store.Write(t.Context(), func(tx *store.Tx) error {
				if users, err := tx.Users(arn, 1); err != nil || len(users) > 0 {
					return errors.Join(err, refused)
				}
				return store.DeleteCertificate(tx, arn)
			})
			return nil
		})
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		switch {
		case naming.code == "" && errors.Is(deleting, refused):
			named++
		case naming.code == "NotFoundException" && deleting == nil:
			deleted++
		default:
			t.Fatalf("named: %s %s, deleted: %v", naming.code, naming.body, deleting)
		}
		servers[0].must(t, "PUT", node, `{"spec":{}}`)
	}
	t.Logf("named %d times, deleted %d times", named, deleted)
	if _, err := servers[0].store.Read(t.Context(), func(tx *store.Tx) error {
		users, err := tx.AllUsers()
		if err == nil && len(users) > 0 {
			t.Errorf("references stay of specs that name nothing: %v", users)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestUsers: a spec is a user of all that it names, once, until it names it no
// more or is deleted.
func TestUsers(t *testing.T) {
	h := newHarness(t)
	h.makeSmallMesh(t)
	makeTrust(t, h.store)
	users := func(arn string) (found []string) {
		t.Helper()
		if _, err := h.store.Read(t.Context(), func(tx *store.Tx) error {
			all, err := tx.Users(arn, 0)
			for _, u := range all {
				found = append(found, u.Owner+" "+u.ID.String())
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return found
	}
	want := func(arn, want string) {
		t.Helper()
		if got := strings.Join(users(arn), ", "); got != want {
			t.Errorf("%s is used by %q, want %q", arn, got, want)
		}
	}
	const private, root, node = aCertificate + "private", anAuthority + "root", inM + "/virtualNodes/blue"
	h.must(t, "PUT", node, certificateSpec(private, private))
	h.must(t, "PUT", inM+"/virtualGateways", `{"virtualGatewayName":"tls","spec":{"listeners":[{"portMapping":{"port":1,"protocol":"http"},"tls":{"mode":"STRICT","certificate":{"acm":{"certificateArn":"`+private+`"}}}}],
		"backendDefaults":{"clientPolicy":{"tls":{"validation":{"trust":{"acm":{"certificateAuthorityArns":["`+root+`"]}}}}}}}}`)
	want(private, testAccount+" virtualGateway/tls, "+testAccount+" virtualNode/blue")
	want(root, testAccount+" virtualGateway/tls")
	h.must(t, "PUT", node, trustSpec(root))
	want(private, testAccount+" virtualGateway/tls")
	h.must(t, "DELETE", inM+"/virtualGateways/tls", "")
	want(private, "")
	want(root, testAccount+" virtualNode/blue")
	h.must(t, "PUT", inM+"/virtualNodes", `{"virtualNodeName":"twin",`+strings.TrimPrefix(certificateSpec(private), "{"))
	h.must(t, "DELETE", inM+"/virtualNodes/twin", "")
	want(private, "")
	view, ok := h.store.View(mesh.Name{Owner: testAccount, Mesh: "m"})
	if !ok || view.VirtualNodes["blue"] == nil {
		t.Fatal("no view")
	}
	if _, authorities := mesh.NodeARNs(view.VirtualNodes["blue"].Spec); len(authorities) != 1 || view.Authorities[root] == nil {
		t.Errorf("the view has %v of %v", view.Authorities, authorities)
	}
}
