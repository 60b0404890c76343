package main

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/appmesh"
)

// tags are those of the resource of an ARN, as its service lists them; of what is
// not there, none. Policies can depend on them.
func (p *controlPlane) tags(ctx context.Context, arn string) (map[string]string, error) {
	found := map[string]string{}
	add := func(key string, value *string) {
		if value != nil {
			found[key] = *value
		} else {
			found[key] = ""
		}
	}
	var err error
	switch fields := strings.SplitN(arn, ":", 4); {
	case len(fields) < 4:
		return nil, nil
	case fields[2] == "appmesh":
		var out *appmesh.ListTagsForResourceOutput
		if out, err = p.mesh.ListTagsForResource(ctx, &appmesh.ListTagsForResourceInput{ResourceArn: arn}); err == nil {
			for _, t := range out.Tags {
				add(t.Key, t.Value)
			}
		}
	case fields[2] == "acm" && p.acm == nil:
		return nil, nil // with --acm aws the tags are AWS's, and so is who may call there
	case fields[2] == "acm":
		var out *acm.ListTagsForCertificateResponse
		if out, err = p.acm.ListTagsForCertificate(ctx, &acm.ListTagsForCertificateRequest{CertificateArn: arn}); err == nil {
			for _, t := range out.Tags {
				add(t.Key, t.Value)
			}
		}
	case fields[2] == "acm-pca":
		found, err = p.pca.TagsOf(ctx, arn)
	}
	if refused, ok := errors.AsType[*api.Exception](err); ok && refused.Status < http.StatusInternalServerError {
		return nil, nil // the operation itself says what is wrong with the ARN
	}
	return found, err
}
