package pki

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/fairlead/fairlead/internal/store"
)

// tokenLife is how long a request with a token is answered as it was the first
// time (facts B.3).
const tokenLife = 5 * time.Minute

// answered is what a request with an idempotency token was answered with.
type answered struct {
	ARN string    `json:"arn"`
	At  time.Time `json:"at"`
}

// tokenOf is where the answer to a request with a token lies; nil if it has
// none. All of the request counts: another one with the same token is a new
// one, since AWS has no exception for it.
func tokenOf(operation, account string, token *string, request any) (store.Place, error) {
	if token == nil {
		return nil, nil
	}
	all, err := json.Marshal(request, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("digest request: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q%s", []string{operation, account}, all))
	return tokenPlace(hex.EncodeToString(sum[:])), nil
}

// once is the ARN that was answered to the same request not long ago; empty: it
// is new, and its answer is now staged to be that.
func (p *PrivateCA) once(tx *store.Tx, token store.Place, arn string) (before string, err error) {
	if token == nil {
		return "", nil
	}
	now := p.Now()
	o, err := store.GetObject[answered](tx, token)
	switch {
	case err == nil && now.Sub(o.Value.At) < tokenLife:
		return o.Value.ARN, nil
	case err != nil && !isNotFound(err):
		return "", err
	}
	return "", store.PutObject(tx, token, &answered{ARN: arn, At: now})
}

func isNotFound(err error) bool { return errors.Is(err, store.ErrNotFound) }
