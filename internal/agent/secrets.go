package agent

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead/fairlead/internal/envoy"
)

// serverSecret is a secret of the server that is here, as others may know it.
type serverSecret struct {
	name    string
	held    bool        // Envoy has acknowledged a version of it
	namedBy []envoy.Ref // listeners and clusters
	expires time.Time   // of a certificate; zero: it is trust, or cannot be read
}

// serverSecrets are the secrets of the server that are here, by name.
func (m *mirror) serverSecrets() []serverSecret {
	namedBy := map[string][]envoy.Ref{}
	for t := range m.received {
		for _, r := range m.received[t] {
			for _, ref := range r.ads {
				if ref.Type == envoy.Secret && m.received[envoy.Secret][ref.Name] != nil {
					namedBy[ref.Name] = append(namedBy[ref.Name], r.resource.Ref)
				}
			}
		}
	}
	sortRefs(namedBy)
	secrets := make([]serverSecret, 0, len(namedBy))
	for name, refs := range namedBy {
		r := m.received[envoy.Secret][name]
		secrets = append(secrets, serverSecret{name, m.secretsHeld[name] != "", refs, r.expires})
	}
	slices.SortFunc(secrets, func(x, y serverSecret) int { return cmp.Compare(x.name, y.name) })
	return secrets
}

// envoyAccepted notes the secrets that Envoy holds from now on, and returns the
// clusters that name one of which it held another version: all that a cluster
// names of the server is trust.
func (m *mirror) envoyAccepted(accepted []*envoy.Resource) (retrusted []*envoy.Resource) {
	fresh := map[envoy.Ref]bool{}
	for _, r := range accepted {
		if r.Type == envoy.Secret {
			had := m.secretsHeld[r.Name]
			m.secretsHeld[r.Name], fresh[r.Ref] = r.Version, had != "" && had != r.Version
		}
	}
	for _, r := range m.received[envoy.Cluster] {
		if slices.ContainsFunc(r.ads, func(ref envoy.Ref) bool { return fresh[ref] }) {
			retrusted = append(retrusted, r.resource)
		}
	}
	return retrusted
}

// expiryOf is when the certificate in a secret (a serialised Any) expires.
func expiryOf(encoded []byte) time.Time {
	var packed anypb.Any
	var secret tlsv3.Secret
	if proto.Unmarshal(encoded, &packed) != nil || packed.UnmarshalTo(&secret) != nil {
		return time.Time{}
	}
	block, _ := pem.Decode(secret.GetTlsCertificate().GetCertificateChain().GetInlineBytes())
	if block == nil {
		return time.Time{}
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}
	}
	return leaf.NotAfter
}
