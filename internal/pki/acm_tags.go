package pki

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/store"
)

// maxCertificateTags is how many tags a certificate may have.
const maxCertificateTags = 50

// tagsOf reads the tags of a request.
func tagsOf(list []acm.Tag) (map[string]string, error) {
	tags := map[string]string{}
	for _, tag := range list {
		if strings.HasPrefix(strings.ToLower(tag.Key), "aws:") {
			return nil, acm.NewInvalidTagException("Tags: the key %q begins with aws:, which is AWS's own", tag.Key)
		}
		if _, again := tags[tag.Key]; again {
			return nil, acm.NewInvalidTagException("Tags: the key %q is there twice", tag.Key)
		}
		tags[tag.Key] = ""
		if tag.Value != nil {
			tags[tag.Key] = *tag.Value
		}
	}
	return tags, nil
}

// AddTagsToCertificate adds tags, or gives those that are there new values.
func (m *ACM) AddTagsToCertificate(ctx context.Context, in *acm.AddTagsToCertificateRequest) error {
	added, err := tagsOf(in.Tags)
	if err != nil {
		return err
	}
	return m.change(ctx, in.CertificateArn, func(_ *store.Tx, _ store.Place, c *certificate) (bool, error) {
		if c.Tags == nil {
			c.Tags = map[string]string{}
		}
		before := maps.Clone(c.Tags)
		maps.Copy(c.Tags, added)
		if len(c.Tags) > maxCertificateTags {
			return false, acm.NewTooManyTagsException("A certificate has at most %d tags, %s would have %d", maxCertificateTags, c.ARN, len(c.Tags))
		}
		return !maps.Equal(before, c.Tags), nil
	})
}

// RemoveTagsFromCertificate removes tags, those with a value only if it is theirs.
func (m *ACM) RemoveTagsFromCertificate(ctx context.Context, in *acm.RemoveTagsFromCertificateRequest) error {
	return m.change(ctx, in.CertificateArn, func(_ *store.Tx, _ store.Place, c *certificate) (bool, error) {
		before := len(c.Tags)
		for _, tag := range in.Tags {
			if value, ok := c.Tags[tag.Key]; ok && (tag.Value == nil || *tag.Value == value) {
				delete(c.Tags, tag.Key)
			}
		}
		return len(c.Tags) != before, nil
	})
}

// ListTagsForCertificate lists tags by key.
func (m *ACM) ListTagsForCertificate(ctx context.Context, in *acm.ListTagsForCertificateRequest) (*acm.ListTagsForCertificateResponse, error) {
	c, err := m.read(ctx, in.CertificateArn)
	if err != nil {
		return nil, err
	}
	out := &acm.ListTagsForCertificateResponse{Tags: []acm.Tag{}}
	for _, key := range slices.Sorted(maps.Keys(c.Tags)) {
		value := c.Tags[key]
		out.Tags = append(out.Tags, acm.Tag{Key: key, Value: &value})
	}
	return out, nil
}

// UpdateCertificateOptions changes the preference for transparency logging,
// which is kept and has no effect: private certificates are logged nowhere.
func (m *ACM) UpdateCertificateOptions(ctx context.Context, in *acm.UpdateCertificateOptionsRequest) error {
	return m.change(ctx, in.CertificateArn, func(_ *store.Tx, _ store.Place, c *certificate) (bool, error) {
		if c.Type != acm.CertificateTypePrivate {
			return false, acm.NewValidationException("CertificateArn: %s was imported, so it has no options", c.ARN)
		}
		if in.Options.Export != nil {
			return false, acm.NewValidationException("Options.Export: a private certificate can always be exported; leave it out")
		}
		before := c.Logging
		err := c.setOptions(in.Options)
		return c.Logging != before, err
	})
}

// accountConfiguration is what an account has set for all its certificates.
type accountConfiguration struct {
	DaysBeforeExpiry int64 `json:"daysBeforeExpiry"`
}

// presetDaysBeforeExpiry is AWS's.
const presetDaysBeforeExpiry = 45

// GetAccountConfiguration answers what PutAccountConfiguration has set.
func (m *ACM) GetAccountConfiguration(ctx context.Context) (*acm.GetAccountConfigurationResponse, error) {
	days := int64(presetDaysBeforeExpiry)
	_, err := m.Store.Read(ctx, func(tx *store.Tx) error {
		o, err := store.GetObject[accountConfiguration](tx, store.Place{kindAccount, account(ctx)})
		if err == nil {
			days = o.Value.DaysBeforeExpiry
		}
		if isNotFound(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, failure(err)
	}
	return &acm.GetAccountConfigurationResponse{ExpiryEvents: &acm.ExpiryEventsConfiguration{DaysBeforeExpiry: &days}}, nil
}

// PutAccountConfiguration sets how long before the end of a certificate events
// of it begin. Asking twice for the same is no error, whatever the token.
func (m *ACM) PutAccountConfiguration(ctx context.Context, in *acm.PutAccountConfigurationRequest) error {
	days := int64(presetDaysBeforeExpiry)
	if in.ExpiryEvents != nil && in.ExpiryEvents.DaysBeforeExpiry != nil {
		days = *in.ExpiryEvents.DaysBeforeExpiry
	}
	at := store.Place{kindAccount, account(ctx)}
	_, err := m.Store.Write(ctx, func(tx *store.Tx) error {
		tx.Actor = awsapi.PrincipalFrom(ctx).ARN()
		if _, err := store.GetObject[accountConfiguration](tx, at); err != nil && !isNotFound(err) {
			return err
		}
		return store.PutObject(tx, at, &accountConfiguration{days})
	})
	return failure(err)
}
