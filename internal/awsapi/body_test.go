package awsapi

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/fairlead/fairlead/internal/iam"
)

// TestLargeBodiesShareABudget: while other bodies hold all the memory there is
// for large ones, small ones are answered, large ones wait and are then refused
// with something to try again, and strangers' need none of it.
func TestLargeBodiesShareABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mux := newTestMux(Config{Now: func() time.Time { return signedAt }})
		large := strings.Repeat(" ", 2*smallBody) + "{}"
		send := func(creds aws.Credentials, body string) (int, time.Duration) {
			began := time.Now()
			answer := messageBy(t, creds, "PUT /v20190125/meshes", body).send(t, mux)
			return answer.status, time.Since(began)
		}
		if status, _ := send(rootCreds, large); status != http.StatusBadRequest {
			t.Errorf("a large body: %d", status)
		}
		if err := mux.bodies.budget.Acquire(t.Context(), largeBodies); err != nil {
			t.Fatalf("a request has kept its share: %v", err)
		}
		for _, test := range []struct {
			name   string
			creds  aws.Credentials
			body   string
			status int
			took   time.Duration
		}{
			{"a small body", rootCreds, "{}", http.StatusBadRequest, 0},
			{"a large body", rootCreds, large, http.StatusServiceUnavailable, bodyWait},
			{"a stranger's large body", aws.Credentials{AccessKeyID: "AKIAX", SecretAccessKey: "x"}, large, http.StatusForbidden, 0},
		} {
			if status, took := send(test.creds, test.body); status != test.status || took != test.took {
				t.Errorf("%s: %d after %s, want %d after %s", test.name, status, took, test.status, test.took)
			}
		}
		mux.bodies.budget.Release(largeBodies)
		if status, took := send(rootCreds, large); status != http.StatusBadRequest || took != 0 {
			t.Errorf("a large body afterwards: %d after %s", status, took)
		}
	})
}

// lateKeys know a key only from the second question on.
type lateKeys struct {
	testKeys
	asked *int
}

func (k lateKeys) Key(ctx context.Context, id string) (iam.Key, error) {
	if *k.asked++; *k.asked == 1 {
		return iam.Key{}, iam.ErrUnknownKey
	}
	return k.testKeys.Key(ctx, id)
}

// TestKeyMadeMeanwhile: the body of a stranger is not kept; if the stranger gets
// to be somebody meanwhile, its good signature is not over an empty body.
func TestKeyMadeMeanwhile(t *testing.T) {
	mux := newTestMux(Config{Now: func() time.Time { return signedAt }})
	mux.cfg.Keys = lateKeys{asked: new(int)}
	if a := signedMessage(t, "PUT", "/v20190125/meshes/m/virtualNodes", nodeBody).send(t, mux); a.code != codeUnknownClient {
		t.Errorf("the first request: %d %s", a.status, a.body)
	}
	if a := signedMessage(t, "PUT", "/v20190125/meshes/m/virtualNodes", nodeBody).send(t, mux); a.status != http.StatusOK {
		t.Errorf("the second: %d %s", a.status, a.body)
	}
}
