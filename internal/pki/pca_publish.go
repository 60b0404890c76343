package pki

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// publishTime bounds one answer of Publisher.
const publishTime = 20 * time.Second

// Publisher serves what relying parties fetch without authentication: the CRL
// of an authority at /crl/ID.crl (of a later key of its, /crl/ID.N.crl), and the status of its certificates by OCSP at
// /ocsp/ID (RFC 6960 A.1, GET and POST). Both say what the ledger says at that
// moment.
func (p *PrivateCA) Publisher() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), publishTime)
		defer cancel()
		// A mux would clean the path, in which OCSP's base64 may have slashes.
		path := r.URL.EscapedPath()
		if name, ok := strings.CutPrefix(path, "/crl/"); ok {
			p.serveCRL(ctx, w, r, name)
		} else if rest, ok := strings.CutPrefix(path, "/ocsp/"); ok {
			p.serveOCSP(ctx, w, r, rest)
		} else {
			http.NotFound(w, r)
		}
	})
}

// owner is the account of an authority, found by the authority's id.
type owner struct {
	Account string `json:"account"`
}

// published is the place of an authority of any account: its id is all that a
// URL has, and is random.
func (p *PrivateCA) published(tx *store.Tx, id string) (store.Place, error) {
	if !idPattern.MatchString(id) {
		return nil, store.ErrNotFound
	}
	if known := p.signers.get(id); known != nil {
		return placeOf(known.Account, id), nil
	}
	o, err := store.GetObject[owner](tx, ownerPlace(id))
	if err != nil {
		return nil, err
	}
	return placeOf(o.Value.Account, id), nil
}

func (p *PrivateCA) serveCRL(ctx context.Context, w http.ResponseWriter, r *http.Request, name string) {
	id, generation, ok := parseCRLName(name)
	if !ok {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "a CRL is fetched by GET", http.StatusMethodNotAllowed)
		return
	}
	list, err := p.crl(ctx, id, generation)
	switch {
	case isNotFound(err):
		http.NotFound(w, r)
		return
	case err != nil:
		p.Log.WarnContext(ctx, "private CA: a CRL cannot be served", "authority", id, "error", err)
		http.Error(w, "the list cannot be made now", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/pkix-crl")
	w.Header().Set("Last-Modified", list.thisUpdate.UTC().Format(http.TimeFormat))
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Content-Length", strconv.Itoa(len(list.der)))
	if r.Method == http.MethodGet {
		w.Write(list.der) //nolint:errcheck // whoever has gone fetches it again
	}
}

func (p *PrivateCA) serveOCSP(ctx context.Context, w http.ResponseWriter, r *http.Request, rest string) {
	id, encoded, _ := strings.Cut(rest, "/")
	der, err := ocspRequest(w, r, encoded)
	if err != nil {
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, err.Error(), http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "application/ocsp-response")
	w.Header().Set("Cache-Control", "no-cache")
	w.Write(p.ocsp(ctx, id, der)) //nolint:errcheck // whoever has gone asks again
}

var errOCSPMethod = errors.New("a status is asked for by POST, or by GET with the request in the path")

// ocspRequest is the request in DER; nil if it cannot be read.
func ocspRequest(w http.ResponseWriter, r *http.Request, encoded string) ([]byte, error) {
	const most = 4096
	switch r.Method {
	case http.MethodPost:
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
		if err != nil {
			return nil, nil
		}
		return body, nil
	case http.MethodGet:
		plain, err := url.PathUnescape(encoded)
		if err != nil || len(plain) > most {
			return nil, nil
		}
		der, err := base64.StdEncoding.DecodeString(plain)
		if err != nil {
			return nil, nil
		}
		return der, nil
	}
	return nil, errOCSPMethod
}

// ocsp is the answer to a request.
func (p *PrivateCA) ocsp(ctx context.Context, id string, der []byte) []byte {
	asked, err := ca.ParseOCSPRequest(der)
	if err != nil {
		return ca.OCSPMalformed()
	}
	answer, err := p.statusOf(ctx, id, asked)
	switch {
	case isNotFound(err):
		return ca.OCSPUnauthorized()
	case ca.KindOf(err) == ca.InvalidRequest:
		return ca.OCSPMalformed()
	case err != nil:
		p.Log.WarnContext(ctx, "private CA: a status cannot be told", "authority", id, "error", err)
		return ca.OCSPTryLater()
	}
	return answer
}

// paddedSerial is a serial as it is in the ledger; empty: it is none of ours.
func paddedSerial(n *big.Int) string {
	if n.Sign() <= 0 || n.BitLen() > 128 {
		return ""
	}
	return strings.Repeat("0", 32-len(n.Text(16))) + n.Text(16)
}
