package clients_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	api "github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/meshtest"
)

var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// modelled are the codes that clients have types for.
func modelled() map[string]bool {
	codes := map[string]bool{}
	for _, op := range api.Operations {
		for _, code := range op.Errors {
			codes[code] = true
		}
	}
	return codes
}

// see checks what differs from run to run (ids, times, tokens) and renders the
// rest as one line.
func (r *run) see(t *testing.T, c call, got answer) (string, error) {
	if c.Presign {
		return r.seePresigned(t, got.URL)
	}
	if c.PageSize == 0 && (!uuid.MatchString(got.Request) || got.Pages != 1) {
		return "", fmt.Errorf("request id %q, %d requests", got.Request, got.Pages)
	}
	if e := got.Error; e != nil {
		if e.Typed != nil && *e.Typed != modelled()[e.Code] {
			return "", fmt.Errorf("%s: is it the client's type for it? %v", e.Code, *e.Typed)
		}
		return r.shorten(fmt.Sprintf("%d %s: %s", got.Status, e.Code, e.Message)), nil
	}
	if err := echoes(c, got.Output); err != nil {
		return "", err
	}
	seen, err := r.render(got.Output)
	if err != nil {
		return "", err
	}
	if c.PageSize > 0 {
		return fmt.Sprintf("%d requests %s", got.Pages, seen), nil
	}
	return fmt.Sprintf("%d %s", got.Status, seen), nil
}

// seePresigned fetches a URL as anybody could. The answer on the wire is the
// bare member, with times in seconds.
func (r *run) seePresigned(t *testing.T, url string) (string, error) {
	status, body, err := meshtest.Fetch(t.Context(), url)
	if err != nil {
		return "", err
	}
	body = regexp.MustCompile(`("(?:createdAt|lastUpdatedAt)":\d+)\.(\d{3})\b`).ReplaceAllString(body, "$1$2")
	seen, err := r.render([]byte(body))
	return fmt.Sprintf("%d %s", status, seen), err
}

// echoes checks that a spec comes back as it was sent, member for member, but
// for the port of a health check.
func echoes(c call, output json.RawMessage) error {
	var in struct {
		Spec map[string]any `json:"spec"`
	}
	var out map[string]struct {
		Spec map[string]any `json:"spec"`
	}
	if !strings.HasPrefix(c.Operation, "Create") && !strings.HasPrefix(c.Operation, "Update") {
		return nil
	}
	if err := json.Unmarshal(c.Input, &in); err != nil {
		return err
	}
	if err := json.Unmarshal(output, &out); err != nil || len(out) != 1 {
		return fmt.Errorf("the output is not one resource (%w): %s", err, output)
	}
	if in.Spec == nil { // only of a mesh
		in.Spec = map[string]any{}
	}
	listeners, _ := in.Spec["listeners"].([]any)
	for _, l := range listeners {
		listener := l.(map[string]any)
		if check, ok := listener["healthCheck"].(map[string]any); ok {
			check["port"] = listener["portMapping"].(map[string]any)["port"]
		}
	}
	for _, resource := range out {
		if diff := cmp.Diff(in.Spec, resource.Spec); diff != "" {
			return fmt.Errorf("the spec did not come back as it was sent (-sent +returned):\n%s", diff)
		}
	}
	return nil
}

func (r *run) render(output json.RawMessage) (string, error) {
	var value any
	if err := json.Unmarshal(output, &value); err != nil {
		return "", fmt.Errorf("%w: %s", err, output)
	}
	value, err := r.settle(value)
	if err != nil {
		return "", fmt.Errorf("%w in %s", err, output)
	}
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err = encoder.Encode(value)
	return r.shorten(strings.TrimSpace(text.String())), err
}

// shorten is what fill undoes.
func (r *run) shorten(seen string) string {
	seen = strings.ReplaceAll(seen, longName, "$name255")
	if r.nextToken == "" {
		return seen
	}
	return strings.ReplaceAll(seen, r.nextToken, "$nextToken")
}

// settle replaces what differs from run to run.
func (r *run) settle(value any) (any, error) {
	switch v := value.(type) {
	case []any:
		for i := range v {
			var err error
			if v[i], err = r.settle(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for name := range v {
			var err error
			if v[name], err = r.settle(v[name]); err != nil {
				return nil, err
			}
		}
		if token, ok := v["nextToken"].(string); ok {
			r.nextToken, v["nextToken"] = token, "$nextToken"
		}
		if v["arn"] != nil {
			return r.settleMetadata(v)
		}
	}
	return value, nil
}

// settleMetadata checks what every resource carries, and shortens it to its
// ARN, its version, and the number of its uid.
func (r *run) settleMetadata(v map[string]any) (any, error) {
	created, ok1 := v["createdAt"].(float64)
	updated, ok2 := v["lastUpdatedAt"].(float64)
	version, ok3 := v["version"].(float64)
	if !ok1 || !ok2 || !ok3 || v["meshOwner"] != meshtest.Account || v["resourceOwner"] != meshtest.Account {
		return nil, fmt.Errorf("metadata %v", v)
	}
	if now := float64(time.Now().UnixMilli()); created < float64(r.began.UnixMilli()) || updated < created || updated > now {
		return nil, fmt.Errorf("times %f and %f, now it is %f", created, updated, now)
	}
	short := fmt.Sprintf("%s version %g", v["arn"], version)
	if uid, ok := v["uid"].(string); ok {
		if !uuid.MatchString(uid) {
			return nil, fmt.Errorf("uid %q", uid)
		}
		if r.uids[uid] == 0 {
			r.uids[uid], r.created[uid] = len(r.uids)+1, created
		}
		if r.created[uid] != created {
			return nil, fmt.Errorf("%s was created at %f before, and now at %f", uid, r.created[uid], created)
		}
		short += fmt.Sprintf(" uid %d", r.uids[uid])
	}
	for _, name := range []string{"arn", "createdAt", "lastUpdatedAt", "meshOwner", "resourceOwner", "version", "uid"} {
		delete(v, name)
	}
	if len(v) == 0 {
		return short, nil
	}
	v["metadata"] = short // beside the names in a list
	return v, nil
}
