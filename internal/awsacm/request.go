package awsacm

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/internal/store"
)

const (
	// AcceptWithin is how long a write of a spec waits for what it names.
	AcceptWithin = 12 * time.Second
	// waitStep is how often a server looks whether the leader has answered.
	waitStep = 100 * time.Millisecond
	// maxRequests bounds what waits to be looked at.
	maxRequests = 1000
	// maxAnswerAge is when an answer is dropped that nobody has read.
	maxAnswerAge = 10 * time.Minute
)

// busy says that too much waits to be fetched from AWS.
func busy() error {
	return api.Exceptionf("TooManyRequestsException", http.StatusTooManyRequests, "Too much waits to be fetched from AWS. Try again.")
}

// request asks the server that has the lead to look at an ARN now.
type request struct {
	At      time.Time `json:"at"`
	Done    bool      `json:"done,omitzero"`
	Failure string    `json:"failure,omitzero"` // why it could not be fetched
}

func requestPlace(arn string) store.Place { return store.Place{"aws-request", arn} }

// waiting are the ARNs of requests that are not answered.
func (m *Mirror) waiting(ctx context.Context) (map[string]bool, error) {
	all, err := list[request](ctx, m.Store, requestPlace("")[:1])
	arns := map[string]bool{}
	for _, o := range all {
		if !o.Value.Done {
			arns[o.Place[1]] = true
		}
	}
	return arns, err
}

// answer ends a request for an ARN, if there is one.
func answer(tx *store.Tx, arn string, failed error) error {
	o, err := store.GetObject[request](tx, requestPlace(arn))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	o.Value.Done = true
	if failed != nil {
		o.Value.Failure = failureText(failed)
	}
	return store.PutObject(tx, requestPlace(arn), o.Value)
}

// dropAnswers ends requests that nobody waits for any more.
func (m *Mirror) dropAnswers(ctx context.Context) error {
	all, err := list[request](ctx, m.Store, requestPlace("")[:1])
	if err != nil {
		return err
	}
	for _, o := range all {
		if !o.Value.Done || m.Now().Sub(o.Value.At) < maxAnswerAge {
			continue
		}
		_, err := m.Store.Write(ctx, func(tx *store.Tx) error { return dropRequest(tx, o.Place[1]) })
		if err != nil {
			return err
		}
	}
	return nil
}

func dropRequest(tx *store.Tx, arn string) error {
	if _, err := store.GetObject[request](tx, requestPlace(arn)); errors.Is(err, store.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	return tx.DeleteObject(requestPlace(arn))
}

// Fetch has those of some ARNs fetched that no spec names yet, so that a spec
// may: what AWS says of them is in the store then. It returns why it could not
// be had, by ARN. The error is the store's, an exception for the caller, or
// context.DeadlineExceeded: AWS did not answer within AcceptWithin.
func (m *Mirror) Fetch(ctx context.Context, arns []string) (refused map[string]string, err error) {
	ctx, cancel := context.WithTimeout(ctx, AcceptWithin)
	defer cancel()
	asked, err := m.ask(ctx, arns, func(tx *store.Tx, arn string) (bool, error) {
		users, err := tx.Users(arn, 1)
		if err != nil || len(users) == 0 {
			return true, err
		}
		if isAuthority(arn) {
			_, err = store.GetAuthority(tx, arn)
		} else {
			_, err = store.GetCertificate(tx, arn)
		}
		if errors.Is(err, store.ErrNotFound) {
			return true, nil
		}
		return false, err
	})
	if err != nil || len(asked) == 0 {
		return nil, err
	}
	ticker := time.NewTicker(waitStep)
	defer ticker.Stop()
	for {
		refused, done, err := m.answers(ctx, asked)
		if err != nil || done {
			return refused, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ticker.C:
		}
	}
}

// ask writes requests for those ARNs that need one, and returns them.
func (m *Mirror) ask(ctx context.Context, arns []string, needs func(tx *store.Tx, arn string) (bool, error)) (asked []string, err error) {
	_, err = m.Store.Write(ctx, func(tx *store.Tx) error {
		asked = nil
		outstanding, err := store.ListObjects[request](tx, requestPlace("")[:1], nil, maxRequests)
		if err != nil {
			return err
		}
		for _, arn := range arns {
			if _, err := parseARN(arn, m.Region); err != nil {
				continue // the rules on specs say so
			}
			need, err := needs(tx, arn)
			if err != nil {
				return err
			}
			if !need {
				continue
			}
			if len(outstanding)+len(asked) >= maxRequests {
				return busy()
			}
			if _, err := store.GetObject[request](tx, requestPlace(arn)); err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
			if err := store.PutObject(tx, requestPlace(arn), &request{At: m.Now().UTC()}); err != nil {
				return err
			}
			asked = append(asked, arn)
		}
		return nil
	})
	m.kick()
	return asked, err
}

// answers reads what has come of requests; not done: some are not answered yet.
// A request that is gone was answered to somebody else.
func (m *Mirror) answers(ctx context.Context, asked []string) (refused map[string]string, done bool, err error) {
	_, err = m.Store.Read(ctx, func(tx *store.Tx) error {
		refused, done = map[string]string{}, true
		for _, arn := range asked {
			o, err := store.GetObject[request](tx, requestPlace(arn))
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if done = done && o.Value.Done; o.Value.Failure != "" {
				refused[arn] = o.Value.Failure
			}
		}
		return nil
	})
	return refused, done, err
}
