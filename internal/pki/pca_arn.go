package pki

import (
	"context"
	"net/http"
	"regexp"
	"strings"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/iam"
	"github.com/fairlead/fairlead/internal/store"
)

// Where things lie in the store.
func placeOf(account, id string) store.Place { return store.Place{"authority", account, id} }
func ownerPlace(id string) store.Place       { return store.Place{"authority-owner", id} }
func certificatePlace(id, serial string) store.Place {
	return store.Place{"authority-issued", id, serial}
}
func revokedPlace(id, serial string) store.Place { return store.Place{"authority-revoked", id, serial} }
func revocationsPlace(id string) store.Place     { return store.Place{"authority-revocations", id} }
func tokenPlace(digest string) store.Place       { return store.Place{"authority-token", digest} }
func reportPlace(id, report string) store.Place  { return store.Place{"authority-report", id, report} }
func pendingPlace(kind, account, id string) store.Place {
	return store.Place{"authority-pending", kind, account, id}
}

var (
	idPattern     = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	serialPattern = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// arn names an authority.
func (p *PrivateCA) arn(account, id string) string {
	return "arn:" + awsapi.Partition(p.Region) + ":acm-pca:" + p.Region + ":" + account + ":certificate-authority/" + id
}

func certificateARN(authority, serial string) string { return authority + "/certificate/" + serial }

// parseARN finds the place of an authority, which must be the caller's own or
// adopted: what a resource policy allows other accounts comes with sharing.
func (p *PrivateCA) parseARN(ctx context.Context, operation, arn string) (store.Place, error) {
	fields := strings.SplitN(arn, ":", 6)
	if len(fields) < 6 || fields[0] != "arn" || fields[2] != "acm-pca" {
		return nil, acmpca.NewInvalidArnException("%.200s is not the ARN of a private certificate authority", arn)
	}
	if fields[1] != awsapi.Partition(p.Region) || fields[3] != p.Region {
		return nil, acmpca.NewInvalidArnException("%.200s is not an ARN of this server's region, which is %s in the partition %s", arn, p.Region, awsapi.Partition(p.Region))
	}
	id, ok := strings.CutPrefix(fields[5], "certificate-authority/")
	if !ok || !idPattern.MatchString(id) {
		return nil, acmpca.NewInvalidArnException("%.200s is not the ARN of a private certificate authority: it ends in certificate-authority/ and a UUID", arn)
	}
	at, own := placeOf(fields[4], id), awsapi.PrincipalFrom(ctx)
	if may, err := p.manages(ctx, own, at); err != nil {
		return nil, failure(err)
	} else if !may {
		return nil, api.Exceptionf("AccessDeniedException", http.StatusBadRequest,
			"User: %s is not authorized to perform: acm-pca:%s on resource: %s because no resource-based policy allows the acm-pca:%[2]s action", own.ARN(), operation, arn)
	}
	return at, nil
}

// manages says whether a principal may do anything with the authority of a
// place.
func (p *PrivateCA) manages(ctx context.Context, own iam.Principal, at store.Place) (may bool, err error) {
	if at[1] == own.Account {
		return true, nil
	}
	_, err = p.Store.Read(ctx, func(tx *store.Tx) error {
		o, err := store.GetObject[authority](tx, at)
		may = err == nil && p.managed(own, o.Value)
		return ignoreNotFound(err)
	})
	return may, err
}

// managed says whether an authority is the principal's to manage: one of its own
// account or, if it owns this server, one that was adopted from another.
func (p *PrivateCA) managed(own iam.Principal, a *authority) bool {
	return a.Account == own.Account || a.Adopted && own.Account == p.Store.Account()
}

// parseCertificateARN is the serial of a certificate of an authority.
func parseCertificateARN(authority, arn string) (serial string, err error) {
	serial, ok := strings.CutPrefix(arn, certificateARN(authority, ""))
	if !ok || !serialPattern.MatchString(serial) {
		return "", acmpca.NewInvalidArnException("%.200s is not the ARN of a certificate of %s", arn, authority)
	}
	return serial, nil
}

// parseTemplate finds the template of an ARN; no ARN means the default.
func (p *PrivateCA) parseTemplate(arn *string) (ca.Template, error) {
	text := ""
	if arn != nil {
		text = *arn
	}
	return ca.ParseTemplateARN(awsapi.Partition(p.Region), text)
}
