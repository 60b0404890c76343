package pki

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/store"
)

// acmPrincipal is the one service that permissions are given to.
const acmPrincipal = "acm.amazonaws.com"

// edit changes an authority for an operation that is no deed of the CA itself.
func (p *PrivateCA) edit(ctx context.Context, operation, arn string, do deed, fn func(a *authority, now time.Time) error) error {
	at, err := p.parseARN(ctx, operation, arn)
	if err != nil {
		return err
	}
	return p.write(ctx, func(tx *store.Tx) error { return p.change(tx, at, do, fn) })
}

// checkPermission wants what permissions can be about: ACM, in the caller's own
// account.
func checkPermission(ctx context.Context, principal string, source *string) error {
	if principal != acmPrincipal {
		return invalid("Principal: permissions are for %s, not for %.128q", acmPrincipal, principal)
	}
	if source != nil && *source != account(ctx) {
		return invalid("SourceAccount: a permission is for the authority's own account, which is %s", account(ctx))
	}
	return nil
}

// invalid is a member that the operation's model has no exception for.
func invalid(format string, args ...any) error {
	return api.Exceptionf("ValidationException", http.StatusBadRequest, format, args...)
}

// CreatePermission lets ACM issue and renew certificates.
func (p *PrivateCA) CreatePermission(ctx context.Context, in *acmpca.CreatePermissionRequest) error {
	if err := checkPermission(ctx, in.Principal, in.SourceAccount); err != nil {
		return err
	}
	return p.edit(ctx, "CreatePermission", in.CertificateAuthorityArn, doShare, func(a *authority, now time.Time) error {
		if len(a.Permissions) > 0 {
			return acmpca.NewPermissionAlreadyExistsException("%s has a permission on %s already: delete it to change its actions", in.Principal, in.CertificateAuthorityArn)
		}
		actions := slices.Clone(in.Actions)
		slices.Sort(actions)
		a.Permissions = []acmpca.Permission{{
			CertificateAuthorityArn: &in.CertificateAuthorityArn, Principal: &in.Principal, SourceAccount: &a.Account,
			Actions: slices.Compact(actions), CreatedAt: api.Timestamp{Time: now.UTC()},
		}}
		return nil
	})
}

// DeletePermission takes ACM's permission away.
func (p *PrivateCA) DeletePermission(ctx context.Context, in *acmpca.DeletePermissionRequest) error {
	if err := checkPermission(ctx, in.Principal, in.SourceAccount); err != nil {
		return err
	}
	return p.edit(ctx, "DeletePermission", in.CertificateAuthorityArn, doShare, func(a *authority, _ time.Time) error {
		if len(a.Permissions) == 0 {
			return acmpca.NewResourceNotFoundException("%s has no permission on %s", in.Principal, in.CertificateAuthorityArn)
		}
		a.Permissions = nil
		return nil
	})
}

// ListPermissions lists the permissions: there is at most one.
func (p *PrivateCA) ListPermissions(ctx context.Context, in *acmpca.ListPermissionsRequest) (*acmpca.ListPermissionsResponse, error) {
	if in.NextToken != nil { // the one page never ends with one
		return nil, acmpca.NewInvalidNextTokenException("NextToken: %.64q is not a token of this list", *in.NextToken)
	}
	a, err := p.show(ctx, "ListPermissions", in.CertificateAuthorityArn, doShowSharing)
	if err != nil {
		return nil, err
	}
	return &acmpca.ListPermissionsResponse{Permissions: append([]acmpca.Permission{}, a.Permissions...)}, nil
}

// PutPolicy keeps a resource policy. It must have the one shape that AWS takes
// (parsePolicy).
func (p *PrivateCA) PutPolicy(ctx context.Context, in *acmpca.PutPolicyRequest) error {
	if err := p.parsePolicy(in.Policy, in.ResourceArn); err != nil {
		return err
	}
	return p.edit(ctx, "PutPolicy", in.ResourceArn, doShare, func(a *authority, _ time.Time) error {
		a.Policy = in.Policy
		return nil
	})
}

// GetPolicy returns the policy as it was put.
func (p *PrivateCA) GetPolicy(ctx context.Context, in *acmpca.GetPolicyRequest) (*acmpca.GetPolicyResponse, error) {
	a, err := p.show(ctx, "GetPolicy", in.ResourceArn, doShowSharing)
	if err != nil {
		return nil, err
	}
	if a.Policy == "" {
		return nil, acmpca.NewResourceNotFoundException("The certificate authority %s has no policy", in.ResourceArn)
	}
	return &acmpca.GetPolicyResponse{Policy: &a.Policy}, nil
}

// DeletePolicy removes the policy, if there is one.
func (p *PrivateCA) DeletePolicy(ctx context.Context, in *acmpca.DeletePolicyRequest) error {
	return p.edit(ctx, "DeletePolicy", in.ResourceArn, doShare, func(a *authority, _ time.Time) error {
		a.Policy = ""
		return nil
	})
}
