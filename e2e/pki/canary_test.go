package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/acm"
	"github.com/aws/aws-sdk-go-v2/service/acm/types"

	"github.com/fairlead/fairlead/api"
	acmapi "github.com/fairlead/fairlead/api/acm"
	acmpcaapi "github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/meshtest"
)

// canaries are a key and a passphrase that are known here, and must not come
// out anywhere.
type canaries struct {
	certificate, key []byte // PEM
	needles          map[string][]byte
}

func newCanaries(t *testing.T) *canaries {
	t.Helper()
	private := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "canary.apps.local"}, Issuer: pkix.Name{CommonName: "canary.apps.local"},
		DNSNames: []string{"canary.apps.local"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(240 * time.Hour)}
	certificate := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, private.Public(), private))
	der := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(private))
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return &canaries{
		certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), key: text,
		needles: map[string][]byte{
			"the passphrase": []byte(passphrase), "the key": must[[]byte](t)(private.Bytes()),
			// The first line is the same for every key of this kind.
			"the key's PEM": bytes.Split(text, []byte("\n"))[2],
		},
	}
}

// forms are a secret as programs write bytes: as they are, in hexadecimal, as Go
// prints a slice, and in base64 wherever it begins in what is encoded.
func forms(secret []byte) map[string]string {
	numbers := strings.Trim(fmt.Sprint(secret), "[]")
	all := map[string]string{"as it is": string(secret), "in hexadecimal": hex.EncodeToString(secret), "in HEXADECIMAL": strings.ToUpper(hex.EncodeToString(secret)), "as numbers": numbers,
		"quoted": strings.Trim(strconv.Quote(string(secret)), `"`), "quoted in ASCII": strings.Trim(strconv.QuoteToASCII(string(secret)), `"`)}
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			text := encoding.EncodeToString(append(make([]byte, before), secret...))
			all[fmt.Sprintf("in base64 %d %v", before, encoding == base64.RawURLEncoding)] = text[4 : len(text)-4]
		}
	}
	return all
}

// find fails the test if a canary is in a text.
func (c *canaries) find(t *testing.T, where, text string) {
	t.Helper()
	for what, secret := range c.needles {
		for form, needle := range forms(secret) {
			if strings.Contains(text, needle) {
				t.Errorf("%s is in %s, %s", what, where, form)
			}
		}
	}
}

// called is an operation of a service's table, as it is called.
type called struct {
	service, target string
	input           reflect.Type
}

func everyOperation() []called {
	var all []called
	for _, o := range acmapi.Operations {
		all = append(all, called{acmapi.SigningName, acmapi.TargetPrefix + "." + o.Name, reflect.TypeOf(o.New()).Elem()})
	}
	for _, o := range acmpcaapi.Operations {
		all = append(all, called{acmpcaapi.SigningName, acmpcaapi.TargetPrefix + "." + o.Name, reflect.TypeOf(o.New()).Elem()})
	}
	return all
}

// body fills each member of an input but those that are secret: what known has by
// its name, blob into bytes. Structures in structures are filled to a depth: some
// have themselves as members.
func body(input reflect.Type, known map[string]any, blob []byte, depth int) map[string]any {
	all := map[string]any{}
	for i := range input.NumField() {
		field := input.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		of := field.Type
		if of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		switch value, ok := known[name]; {
		case ok:
			all[name] = value
		case of == reflect.TypeFor[api.Timestamp]():
			all[name] = 1
		case of == reflect.TypeFor[[]byte]():
			all[name] = blob
		case of.Kind() == reflect.String:
			all[name] = "text"
		case of.Kind() == reflect.Int64, of.Kind() == reflect.Int32, of.Kind() == reflect.Int:
			all[name] = 1
		case of.Kind() == reflect.Bool:
			all[name] = true
		case depth > 0 && of.Kind() == reflect.Struct && of != reflect.TypeFor[api.Secret]() && of != reflect.TypeFor[api.SecretBlob]():
			all[name] = body(of, known, blob, depth-1)
		}
	}
	return all
}

// caller sends requests as they are.
type caller struct {
	s           *meshtest.Server
	credentials aws.Credentials
}

// call returns the answer's head and body; a wrong one is signed with another key.
func (c *caller) call(t *testing.T, o called, text []byte, wrong bool) (status int, said string) {
	t.Helper()
	r := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), http.MethodPost, c.s.API, bytes.NewReader(text)))
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", o.target)
	signing := c.credentials
	if wrong {
		signing.SecretAccessKey = "wrong"
	}
	sum := sha256.Sum256(text)
	if err := v4.NewSigner().SignHTTP(t.Context(), signing, r, hex.EncodeToString(sum[:]), o.service, meshtest.Region, time.Now()); err != nil {
		t.Fatal(err)
	}
	response := must[*http.Response](t)(http.DefaultClient.Do(r))
	defer response.Body.Close()
	var b bytes.Buffer
	must[int64](t)(b.ReadFrom(response.Body))
	return response.StatusCode, fmt.Sprint(response.Header) + b.String()
}

// TestCanaries puts a key and a passphrase through every operation of ACM and of
// Private CA, where they belong and where they do not, in requests that succeed
// and in many that fail, and looks for them in answers, the log at debug level,
// metrics and every file of the server, its store's among them. It goes by the
// services' tables, so that a new operation is not forgotten.
func TestCanaries(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{Debug: true})
	root := authorityForACM(t, s)
	sdk := acmClient(t, s)
	c := newCanaries(t)
	c.needles["the secret of the root key"] = []byte(must[aws.Credentials](t)(sdk.Options().Credentials.Retrieve(t.Context())).SecretAccessKey)
	raw := &caller{s, must[aws.Credentials](t)(sdk.Options().Credentials.Retrieve(t.Context()))}

	requested := must[*acm.RequestCertificateOutput](t)(sdk.RequestCertificate(t.Context(), &acm.RequestCertificateInput{DomainName: aws.String("a.apps.local"), CertificateAuthorityArn: &root, KeyAlgorithm: types.KeyAlgorithmEcPrime256v1}))
	waitIssued(t, sdk, *requested.CertificateArn, issuedWithin)
	exported := must[*acm.ExportCertificateOutput](t)(sdk.ExportCertificate(t.Context(), &acm.ExportCertificateInput{CertificateArn: requested.CertificateArn, Passphrase: []byte(passphrase)}))
	c.find(t, "the exported certificate", *exported.Certificate+*exported.CertificateChain+*exported.PrivateKey)

	accepted, asked := 0, 0
	for _, o := range everyOperation() {
		imported := must[*acm.ImportCertificateOutput](t)(sdk.ImportCertificate(t.Context(), &acm.ImportCertificateInput{Certificate: c.certificate, PrivateKey: c.key}))
		for name, text := range c.requests(t, o, map[string]any{"CertificateArn": *imported.CertificateArn, "CertificateAuthorityArn": root, "ResourceArn": root}) {
			status, said := raw.call(t, o, text, name == "signed wrongly")
			asked++
			if status == http.StatusOK {
				accepted++
			}
			if status == http.StatusInternalServerError {
				t.Errorf("%s, %s: %s", o.target, name, said)
			}
			c.find(t, "the answer to "+o.target+", "+name, said)
		}
	}
	t.Logf("%d of %d requests were accepted", accepted, asked)
	if accepted < 10 {
		t.Errorf("only %d requests were accepted: little is shown", accepted)
	}
	ledger(t, s, root) // writes an audit report
	metrics := must[string](t)(s.Get(t.Context(), "/metrics"))
	c.find(t, "the metrics", metrics)
	s.Kill() // the log is whole then
	c.find(t, "the log", s.Log())
	c.findInFiles(t, s)
}

// requests are the bodies that an operation is called with.
func (c *canaries) requests(t *testing.T, o called, known map[string]any) map[string][]byte {
	t.Helper()
	secrets := map[string]any{"PrivateKey": c.key, "Passphrase": []byte(passphrase)}
	with := func(base map[string]any, more map[string]any, everywhere bool) []byte {
		all := map[string]any{}
		for name, value := range base {
			all[name] = value
		}
		for name, value := range more {
			if _, has := memberOf(o.input, name); has || everywhere {
				all[name] = value
			}
		}
		return must[[]byte](t)(json.Marshal(all))
	}
	least := map[string]any{}
	for name, value := range known {
		if _, has := memberOf(o.input, name); has {
			least[name] = value
		}
	}
	full := body(o.input, known, c.certificate, 3)
	whole := with(full, secrets, true)
	return map[string][]byte{
		"what it needs":             with(least, secrets, false),
		"every member":              with(full, secrets, false),
		"members that it lacks":     whole,
		"signed wrongly":            whole,
		"a key for every blob":      with(body(o.input, known, c.key, 3), secrets, false),
		"an object for a secret":    with(full, map[string]any{"PrivateKey": map[string]any{"x": string(c.key)}, "Passphrase": map[string]any{"x": passphrase}}, true),
		"a list for a secret":       with(full, map[string]any{"PrivateKey": []string{string(c.key)}, "Passphrase": []string{passphrase}}, true),
		"a secret not in base64":    with(full, map[string]any{"PrivateKey": string(c.key), "Passphrase": passphrase + "#"}, true),
		"a secret that is too long": with(full, map[string]any{"PrivateKey": bytes.Repeat(c.key, 50), "Passphrase": []byte(strings.Repeat(passphrase, 20))}, true),
		"cut in the last character": whole[:len(whole)-1],
		"cut in the middle":         whole[:bytes.Index(whole, []byte(`"PrivateKey":"`))+200],
		"no JSON":                   append([]byte(passphrase), c.key...),
		"a secret as a member":      must[[]byte](t)(json.Marshal(map[string]any{"Passphrase": nil, "Tags": string(c.key)})),
		"twice":                     []byte(`{"Passphrase":"` + passphrase + `","Passphrase":"` + passphrase + `"}`),
	}
}

func memberOf(input reflect.Type, name string) (reflect.StructField, bool) {
	return input.FieldByNameFunc(func(field string) bool { return field == name })
}

// findInFiles looks in all that the server has written but the two files that
// are secrets themselves.
func (c *canaries) findInFiles(t *testing.T, s *meshtest.Server) {
	t.Helper()
	files, reports := 0, 0
	if err := filepath.WalkDir(s.DataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || path == s.Credentials() {
			return err
		}
		content, err := os.ReadFile(path)
		if strings.Contains(path, "audit-report") {
			reports++
		}
		files++
		c.find(t, path, string(content))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if files < 4 || reports == 0 {
		t.Errorf("%d files were looked at, %d of them audit reports", files, reports)
	}
}
