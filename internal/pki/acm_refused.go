package pki

import (
	"context"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
)

// What follows are the operations of ACM that have no meaning here. Each says
// what to use instead.

func noACME(operation string) *api.Exception {
	return acm.NewValidationException("%s: this server has no ACME endpoints; get certificates with request-certificate and a CertificateAuthorityArn", operation)
}

// CreateAcmeDomainValidation is refused.
func (m *ACM) CreateAcmeDomainValidation(_ context.Context, _ *acm.CreateAcmeDomainValidationRequest) (*acm.CreateAcmeDomainValidationResponse, error) {
	return nil, noACME("CreateAcmeDomainValidation")
}

// CreateAcmeEndpoint is refused.
func (m *ACM) CreateAcmeEndpoint(_ context.Context, _ *acm.CreateAcmeEndpointRequest) (*acm.CreateAcmeEndpointResponse, error) {
	return nil, noACME("CreateAcmeEndpoint")
}

// CreateAcmeExternalAccountBinding is refused.
func (m *ACM) CreateAcmeExternalAccountBinding(_ context.Context, _ *acm.CreateAcmeExternalAccountBindingRequest) (*acm.CreateAcmeExternalAccountBindingResponse, error) {
	return nil, noACME("CreateAcmeExternalAccountBinding")
}

// DeleteAcmeDomainValidation is refused.
func (m *ACM) DeleteAcmeDomainValidation(_ context.Context, _ *acm.DeleteAcmeDomainValidationRequest) error {
	return noACME("DeleteAcmeDomainValidation")
}

// DeleteAcmeEndpoint is refused.
func (m *ACM) DeleteAcmeEndpoint(_ context.Context, _ *acm.DeleteAcmeEndpointRequest) error {
	return noACME("DeleteAcmeEndpoint")
}

// DeleteAcmeExternalAccountBinding is refused.
func (m *ACM) DeleteAcmeExternalAccountBinding(_ context.Context, _ *acm.DeleteAcmeExternalAccountBindingRequest) error {
	return noACME("DeleteAcmeExternalAccountBinding")
}

// DescribeAcmeAccount is refused.
func (m *ACM) DescribeAcmeAccount(_ context.Context, _ *acm.DescribeAcmeAccountRequest) (*acm.DescribeAcmeAccountResponse, error) {
	return nil, noACME("DescribeAcmeAccount")
}

// DescribeAcmeDomainValidation is refused.
func (m *ACM) DescribeAcmeDomainValidation(_ context.Context, _ *acm.DescribeAcmeDomainValidationRequest) (*acm.DescribeAcmeDomainValidationResponse, error) {
	return nil, noACME("DescribeAcmeDomainValidation")
}

// DescribeAcmeEndpoint is refused.
func (m *ACM) DescribeAcmeEndpoint(_ context.Context, _ *acm.DescribeAcmeEndpointRequest) (*acm.DescribeAcmeEndpointResponse, error) {
	return nil, noACME("DescribeAcmeEndpoint")
}

// DescribeAcmeExternalAccountBinding is refused.
func (m *ACM) DescribeAcmeExternalAccountBinding(_ context.Context, _ *acm.DescribeAcmeExternalAccountBindingRequest) (*acm.DescribeAcmeExternalAccountBindingResponse, error) {
	return nil, noACME("DescribeAcmeExternalAccountBinding")
}

// GetAcmeExternalAccountBindingCredentials is refused.
func (m *ACM) GetAcmeExternalAccountBindingCredentials(_ context.Context, _ *acm.GetAcmeExternalAccountBindingCredentialsRequest) (*acm.GetAcmeExternalAccountBindingCredentialsResponse, error) {
	return nil, noACME("GetAcmeExternalAccountBindingCredentials")
}

// ListAcmeAccounts is refused.
func (m *ACM) ListAcmeAccounts(_ context.Context, _ *acm.ListAcmeAccountsRequest) (*acm.ListAcmeAccountsResponse, error) {
	return nil, noACME("ListAcmeAccounts")
}

// ListAcmeDomainValidations is refused.
func (m *ACM) ListAcmeDomainValidations(_ context.Context, _ *acm.ListAcmeDomainValidationsRequest) (*acm.ListAcmeDomainValidationsResponse, error) {
	return nil, noACME("ListAcmeDomainValidations")
}

// ListAcmeEndpoints is refused.
func (m *ACM) ListAcmeEndpoints(_ context.Context, _ *acm.ListAcmeEndpointsRequest) (*acm.ListAcmeEndpointsResponse, error) {
	return nil, noACME("ListAcmeEndpoints")
}

// ListAcmeExternalAccountBindings is refused.
func (m *ACM) ListAcmeExternalAccountBindings(_ context.Context, _ *acm.ListAcmeExternalAccountBindingsRequest) (*acm.ListAcmeExternalAccountBindingsResponse, error) {
	return nil, noACME("ListAcmeExternalAccountBindings")
}

// ListCertificateDomainValidations is refused.
func (m *ACM) ListCertificateDomainValidations(_ context.Context, _ *acm.ListCertificateDomainValidationsRequest) (*acm.ListCertificateDomainValidationsResponse, error) {
	return nil, acm.NewInvalidArgsException("the domains of private and imported certificates are not validated; describe-certificate says how a certificate stands")
}

// ListTagsForResource is refused.
func (m *ACM) ListTagsForResource(_ context.Context, _ *acm.ListTagsForResourceRequest) (*acm.ListTagsForResourceResponse, error) {
	return nil, acm.NewValidationException("ResourceArn: only certificates have tags here; use list-tags-for-certificate")
}

// ResendValidationEmail is refused.
func (m *ACM) ResendValidationEmail(_ context.Context, in *acm.ResendValidationEmailRequest) error {
	return acm.NewInvalidStateException("Domain: nobody has to validate the domains of a private certificate, so no e-mail is sent; describe-certificate says how %s stands", in.CertificateArn)
}

// RevokeAcmeAccount is refused.
func (m *ACM) RevokeAcmeAccount(_ context.Context, _ *acm.RevokeAcmeAccountRequest) error {
	return noACME("RevokeAcmeAccount")
}

// RevokeAcmeExternalAccountBinding is refused.
func (m *ACM) RevokeAcmeExternalAccountBinding(_ context.Context, _ *acm.RevokeAcmeExternalAccountBindingRequest) error {
	return noACME("RevokeAcmeExternalAccountBinding")
}

// RevokeCertificate is refused.
func (m *ACM) RevokeCertificate(_ context.Context, in *acm.RevokeCertificateRequest) (*acm.RevokeCertificateResponse, error) {
	return nil, acm.NewValidationException("CertificateArn: only public certificates are revoked so; revoke %s at its authority, with acm-pca revoke-certificate and its serial number", in.CertificateArn)
}

// SearchCertificates is refused.
func (m *ACM) SearchCertificates(_ context.Context, _ *acm.SearchCertificatesRequest) (*acm.SearchCertificatesResponse, error) {
	return nil, acm.NewValidationException("certificates are not searched here; use list-certificates with its filters")
}

// TagResource is refused.
func (m *ACM) TagResource(_ context.Context, _ *acm.TagResourceRequest) error {
	return acm.NewValidationException("ResourceArn: only certificates can be tagged here; use add-tags-to-certificate")
}

// UntagResource is refused.
func (m *ACM) UntagResource(_ context.Context, _ *acm.UntagResourceRequest) error {
	return acm.NewValidationException("ResourceArn: only certificates have tags here; use remove-tags-from-certificate")
}

// UpdateAcmeDomainValidation is refused.
func (m *ACM) UpdateAcmeDomainValidation(_ context.Context, _ *acm.UpdateAcmeDomainValidationRequest) error {
	return noACME("UpdateAcmeDomainValidation")
}

// UpdateAcmeEndpoint is refused.
func (m *ACM) UpdateAcmeEndpoint(_ context.Context, _ *acm.UpdateAcmeEndpointRequest) error {
	return noACME("UpdateAcmeEndpoint")
}
