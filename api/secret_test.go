package api_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
)

// TestSensitiveMembersDoNotPrint: structures of a model with secrets in them.
func TestSensitiveMembersDoNotPrint(t *testing.T) {
	const value = "hunter2-hunter2"
	in := acm.ExportCertificateRequest{CertificateArn: "arn", Passphrase: api.NewSecretBlob([]byte(value))}
	out := acm.ExportCertificateResponse{PrivateKey: api.NewSecret(value)}
	account := acm.AcmeAccount{Contacts: []api.Secret{api.NewSecret(value)}}
	hidden := struct{ in acm.ExportCertificateRequest }{in}
	var shown bytes.Buffer
	for _, v := range []any{in, &in, out, &out, account, &account, []any{in, out}, in.Passphrase, out.PrivateKey} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&shown, verb, v)
			fmt.Fprintf(&shown, verb, hidden)
		}
		slog.New(slog.NewTextHandler(&shown, nil)).Info("call", "input", v)
		slog.New(slog.NewJSONHandler(&shown, nil)).Info("call", "input", v)
		if err := json.NewEncoder(&shown).Encode(v); err != nil {
			t.Fatal(err)
		}
		text, err := jsonv2.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		shown.Write(text)
	}
	for _, form := range []string{value, fmt.Sprintf("%x", value), fmt.Sprintf("%X", value), base64.StdEncoding.EncodeToString([]byte(value)), fmt.Sprint([]byte(value))} {
		if strings.Contains(shown.String(), form) {
			t.Errorf("a secret was printed as %s", form)
		}
	}
	if in.Passphrase.Reveal() != value || out.PrivateKey.Reveal() != value {
		t.Error("a secret is not what it was")
	}
}

// TestTimestamps: to the millisecond, within the years that can be written.
func TestTimestamps(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0.000", "1763899200.123": "1763899200.123", "1.0005": "1.001", "-1.5": "-1.500", "-0.0004": "0.000", "253402300799": "253402300799.000", "1e3": "1000.000",
		"253402300800": "", "-62135596801": "", "1e300": "", "-1e300": "", "NaN": "", "x": "",
	} {
		var at api.Timestamp
		err := at.UnmarshalJSON([]byte(text))
		if err != nil {
			if want != "" {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if got, err := at.MarshalJSON(); err != nil || string(got) != want {
			t.Errorf("%s: got %s, %v, want %s", text, got, err, want)
		}
	}
}
