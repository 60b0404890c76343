package awsapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/internal/iam"
)

// A body is read before its signature can be checked, so whoever can reach the
// address can send one.
const (
	// smallBody is what every request may hold of memory, in bytes.
	smallBody = 64 << 10
	// largeBodies is what all larger bodies together may hold.
	largeBodies = 64 << 20
	// bodyWait is how long a larger one waits for the others.
	bodyWait = 5 * time.Second
	// drainedBody is read, and dropped, of a body that is too large.
	drainedBody = 4 * MaxBody
)

// bodies bounds the memory that bodies hold.
type bodies struct{ budget *semaphore.Weighted }

func newBodies() bodies { return bodies{semaphore.NewWeighted(largeBodies)} }

// body is a request's body with its SHA-256 in hexadecimal.
type body struct {
	content []byte
	hash    string
	release func() // to be called when the content is used no more
}

// read reads all of a body within bounds. keep says whether anybody could have
// signed it: if not, only its hash is made, which takes the same time and no
// memory.
func (b bodies) read(r *http.Request, keep bool) (body, error) {
	if r.ContentLength > MaxBody+drainedBody || r.ContentLength > MaxBody && r.Header.Get("Expect") != "" {
		return body{}, entityTooLarge(MaxBody)
	}
	out := body{release: func() {}}
	hash := sha256.New()
	in := io.TeeReader(io.LimitReader(r.Body, MaxBody+1), hash)
	var content bytes.Buffer
	size, err := io.CopyN(&content, in, smallBody)
	if err == nil { // there may be more
		var rest int64
		if out.release, err = b.acquire(r, keep); err != nil {
			return body{}, err
		}
		if keep {
			rest, err = io.Copy(&content, in)
		} else {
			rest, err = io.Copy(io.Discard, in)
		}
		size += rest
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = tooLarge(r, size)
	} else {
		err = endedEarly(err)
	}
	if err != nil {
		out.release()
		return body{}, err
	}
	if keep {
		out.content = content.Bytes()
	}
	out.hash = hex.EncodeToString(hash.Sum(nil))
	return out, nil
}

// acquire waits for room for a larger body.
func (b bodies) acquire(r *http.Request, keep bool) (release func(), err error) {
	if !keep {
		return func() {}, nil
	}
	size := int64(MaxBody)
	if r.ContentLength >= 0 {
		size = min(size, r.ContentLength)
	}
	size *= 2 // a buffer grows by doubling
	ctx, cancel := context.WithTimeout(r.Context(), bodyWait)
	defer cancel()
	if err := b.budget.Acquire(ctx, size); err != nil {
		return nil, api.Exceptionf(codeNotNow, http.StatusServiceUnavailable, "too many large requests are being read; try again")
	}
	return func() { b.budget.Release(size) }, nil
}

// tooLarge refuses a body of more than MaxBody. Most clients write all before
// they read: a little more is taken, so that they see the answer and not a
// broken connection.
func tooLarge(r *http.Request, size int64) error {
	if size <= MaxBody {
		return nil
	}
	if _, err := io.CopyN(io.Discard, r.Body, drainedBody); err != nil && !errors.Is(err, io.EOF) {
		return endedEarly(err)
	}
	return entityTooLarge(MaxBody)
}

func endedEarly(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return api.Exceptionf(codeTooSlow, http.StatusRequestTimeout, "the request body did not arrive within %s", patience)
	}
	return api.Exceptionf(codeBadRequest, http.StatusBadRequest, "the request body ended early: %v", err)
}

func entityTooLarge(limit int64) error {
	return api.Exceptionf("RequestEntityTooLargeException", http.StatusRequestEntityTooLarge, "the request body is larger than %d bytes", limit)
}

// mayBeSigned is false only for a key that is surely not there.
func (c Config) mayBeSigned(ctx context.Context, s signature) bool {
	_, err := c.key(ctx, s)
	return !errors.Is(err, iam.ErrUnknownKey)
}
