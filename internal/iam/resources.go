package iam

import (
	"slices"
	"strings"
)

// RoleOf reads the ARN of a role.
func RoleOf(arn string) (Ref, bool) {
	r, ok := RefOf(arn)
	return r, ok && r.Kind == KindRole
}

// RefOf reads the ARN of a user, group, role or policy.
func RefOf(arn string) (Ref, bool) {
	fields := strings.SplitN(arn, ":", 6)
	if len(fields) != 6 || fields[0] != "arn" || fields[2] != "iam" || fields[3] != "" || !isAccount(fields[4]) {
		return Ref{}, false
	}
	kind, name, _ := strings.Cut(fields[5], "/")
	return Ref{EntityKind(kind), fields[4], name}, slices.Contains(EntityKinds(), EntityKind(kind)) && IsEntityName(name)
}

// ResourceOf says on which resource an operation is, as AWS documents it: "*", a
// member of its input in braces, which holds an ARN, or a path with members that
// becomes an ARN of the service. An operation that it does not know is nobody's
// but root's.
func ResourceOf(service, operation string) (template string, known bool) {
	switch service {
	case "appmesh":
		return meshResource(operation)
	case "acm":
		return certificateResource(operation)
	case "acm-pca":
		return authorityResource(operation)
	case "sts":
		return "{RoleArn}", operation == "AssumeRole"
	case "fairlead":
		return "*", true
	}
	return "", false
}

func meshResource(operation string) (string, bool) {
	switch operation {
	case "ListMeshes":
		return "*", true
	case "TagResource", "UntagResource", "ListTagsForResource":
		return "{ResourceArn}", true
	case "ListVirtualNodes", "ListVirtualServices", "ListVirtualRouters", "ListVirtualGateways":
		return "mesh/{MeshName}", true
	case "ListRoutes":
		return "mesh/{MeshName}/virtualRouter/{VirtualRouterName}", true
	case "ListGatewayRoutes":
		return "mesh/{MeshName}/virtualGateway/{VirtualGatewayName}", true
	}
	for _, verb := range []string{"Create", "Describe", "Update", "Delete"} {
		switch strings.TrimPrefix(operation, verb) {
		case "Mesh":
			return "mesh/{MeshName}", true
		case "VirtualNode":
			return "mesh/{MeshName}/virtualNode/{VirtualNodeName}", true
		case "VirtualService":
			return "mesh/{MeshName}/virtualService/{VirtualServiceName}", true
		case "VirtualRouter":
			return "mesh/{MeshName}/virtualRouter/{VirtualRouterName}", true
		case "VirtualGateway":
			return "mesh/{MeshName}/virtualGateway/{VirtualGatewayName}", true
		case "Route":
			return "mesh/{MeshName}/virtualRouter/{VirtualRouterName}/route/{RouteName}", true
		case "GatewayRoute":
			return "mesh/{MeshName}/virtualGateway/{VirtualGatewayName}/gatewayRoute/{GatewayRouteName}", true
		}
	}
	return "", false
}

func certificateResource(operation string) (string, bool) {
	switch operation {
	case "ListCertificates", "SearchCertificates", "RequestCertificate", "GetAccountConfiguration", "PutAccountConfiguration", "CreateAcmeEndpoint", "ListAcmeEndpoints":
		return "*", true
	case "AddTagsToCertificate", "DeleteCertificate", "DescribeCertificate", "ExportCertificate", "GetCertificate", "ImportCertificate", "ListCertificateDomainValidations",
		"ListTagsForCertificate", "RemoveTagsFromCertificate", "RenewCertificate", "ResendValidationEmail", "RevokeCertificate", "UpdateCertificateOptions":
		return "{CertificateArn}", true
	case "TagResource", "UntagResource", "ListTagsForResource":
		return "{ResourceArn}", true
	case "CreateAcmeDomainValidation", "CreateAcmeExternalAccountBinding", "DeleteAcmeEndpoint", "DescribeAcmeAccount", "DescribeAcmeEndpoint", "ListAcmeAccounts",
		"ListAcmeDomainValidations", "ListAcmeExternalAccountBindings", "RevokeAcmeAccount", "UpdateAcmeEndpoint":
		return "{AcmeEndpointArn}", true
	case "DeleteAcmeDomainValidation", "DescribeAcmeDomainValidation", "UpdateAcmeDomainValidation":
		return "{AcmeDomainValidationArn}", true
	case "DeleteAcmeExternalAccountBinding", "DescribeAcmeExternalAccountBinding", "GetAcmeExternalAccountBindingCredentials", "RevokeAcmeExternalAccountBinding":
		return "{AcmeExternalAccountBindingArn}", true
	}
	return "", false
}

func authorityResource(operation string) (string, bool) {
	switch operation {
	case "CreateCertificateAuthority", "ListCertificateAuthorities":
		return "*", true
	case "DeletePolicy", "GetPolicy", "PutPolicy":
		return "{ResourceArn}", true
	case "CreateCertificateAuthorityAuditReport", "CreatePermission", "DeleteCertificateAuthority", "DeletePermission", "DescribeCertificateAuthority",
		"DescribeCertificateAuthorityAuditReport", "GetCertificate", "GetCertificateAuthorityCertificate", "GetCertificateAuthorityCsr", "ImportCertificateAuthorityCertificate",
		"IssueCertificate", "ListPermissions", "ListTags", "RestoreCertificateAuthority", "RevokeCertificate", "TagCertificateAuthority", "UntagCertificateAuthority", "UpdateCertificateAuthority":
		return "{CertificateAuthorityArn}", true
	}
	return "", false
}

// TagAction is the operation that a caller needs as well to make something of a
// service with tags.
func TagAction(service string) string {
	return map[string]string{"appmesh": "TagResource", "acm": "AddTagsToCertificate", "acm-pca": "TagCertificateAuthority"}[service]
}
