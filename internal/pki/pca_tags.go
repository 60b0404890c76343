package pki

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/store"
)

const maxTags = 50

// addTags adds tags to those that are there, which it leaves alone.
func addTags(tags map[string]string, added []acmpca.Tag) (map[string]string, error) {
	out, seen := maps.Clone(tags), map[string]bool{}
	if out == nil {
		out = map[string]string{}
	}
	for _, t := range added {
		if strings.HasPrefix(strings.ToLower(t.Key), "aws:") {
			return nil, acmpca.NewInvalidTagException("Tags: the key %q begins with aws:, which is reserved", t.Key)
		}
		if seen[t.Key] {
			return nil, acmpca.NewInvalidTagException("Tags: the key %q is given twice", t.Key)
		}
		seen[t.Key] = true
		out[t.Key] = text(t.Value)
	}
	if len(out) > maxTags {
		return nil, acmpca.NewTooManyTagsException("An authority has at most %d tags, this one would have %d", maxTags, len(out))
	}
	return out, nil
}

// TagCertificateAuthority adds tags, or gives those that are there new values.
func (p *PrivateCA) TagCertificateAuthority(ctx context.Context, in *acmpca.TagCertificateAuthorityRequest) error {
	return p.edit(ctx, "TagCertificateAuthority", in.CertificateAuthorityArn, doTag, func(a *authority, _ time.Time) error {
		tags, err := addTags(a.Tags, in.Tags)
		a.Tags = tags
		return err
	})
}

// UntagCertificateAuthority removes tags: those that have the value that is
// given, if one is.
func (p *PrivateCA) UntagCertificateAuthority(ctx context.Context, in *acmpca.UntagCertificateAuthorityRequest) error {
	return p.edit(ctx, "UntagCertificateAuthority", in.CertificateAuthorityArn, doTag, func(a *authority, _ time.Time) error {
		for _, t := range in.Tags {
			if t.Value == nil || a.Tags[t.Key] == *t.Value {
				delete(a.Tags, t.Key)
			}
		}
		return nil
	})
}

// ListTags lists the tags by key.
func (p *PrivateCA) ListTags(ctx context.Context, in *acmpca.ListTagsRequest) (*acmpca.ListTagsResponse, error) {
	tokens, err := p.pageTokens("tags", in.CertificateAuthorityArn)
	if err != nil {
		return nil, err
	}
	after, err := tokens.after(in.NextToken)
	if err != nil {
		return nil, err
	}
	a, err := p.show(ctx, "ListTags", in.CertificateAuthorityArn, doShowSharing)
	if err != nil {
		return nil, err
	}
	out := &acmpca.ListTagsResponse{Tags: []acmpca.Tag{}}
	for _, key := range slices.Sorted(maps.Keys(a.Tags)) {
		if after != "" && key <= after {
			continue
		}
		if len(out.Tags) == pageSize(in.MaxResults) {
			out.NextToken = tokens.Next(out.Tags[len(out.Tags)-1].Key)
			break
		}
		value := a.Tags[key]
		out.Tags = append(out.Tags, acmpca.Tag{Key: key, Value: &value})
	}
	return out, nil
}

// TagsOf are the tags of an authority in whatever state it is.
func (p *PrivateCA) TagsOf(ctx context.Context, arn string) (map[string]string, error) {
	at, err := p.parseARN(ctx, "ListTags", arn)
	if err != nil {
		return nil, err
	}
	var tags map[string]string
	err = p.read(ctx, func(tx *store.Tx) error {
		o, err := p.get(tx, at)
		if err == nil {
			tags = o.Value.Tags
		}
		return err
	})
	return tags, err
}
