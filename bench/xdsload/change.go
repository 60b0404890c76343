package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/fairlead/fairlead/bench/loadrun"
)

// roundData is what templates know.
type roundData struct {
	Round  int
	Unique string // differs in every round of every run
	Marker string
}

// send makes the change and returns when the server has answered.
func (o *options) send(ctx context.Context, r loadrun.Request, data roundData) error {
	url, err := expand(r.URL, data)
	if err != nil {
		return err
	}
	body, err := expand(r.Body, data)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, url, bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if o.triggerKeyID != "" {
		hash := sha256.Sum256([]byte(body))
		key := aws.Credentials{AccessKeyID: o.triggerKeyID, SecretAccessKey: o.triggerSecretKey}
		if err := v4.NewSigner().SignHTTP(ctx, key, req, hex.EncodeToString(hash[:]), "appmesh", o.region, time.Now()); err != nil {
			return err
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", r.Method, url, resp.Status, answer)
	}
	return nil
}
