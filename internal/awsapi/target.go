package awsapi

import (
	"net/http"
	"strings"

	"github.com/fairlead/fairlead/api"
)

// absentService is the signing name of a service that AWS has and this server
// has not, by the prefix of its targets; empty: no service has it.
func absentService(prefix string) string {
	switch prefix {
	case "CertificateManager":
		return "acm"
	case "ACMPrivateCA":
		return "acm-pca"
	case "Route53AutoNaming_v20170314":
		return "servicediscovery"
	}
	return ""
}

// findTarget says what is wrong with a request of one of the two protocols that
// name their operation in a target: no service that is here speaks them.
func findTarget(p protocol, r *http.Request, v verified) error {
	prefix, operation, ok := parseTarget(p, v.path, r.Header.Values(targetHeader))
	if !ok || r.Method != http.MethodPost {
		return api.Exceptionf(codeUnknown, http.StatusBadRequest, "an operation is called by POST: with one %s header at the path /, or in CBOR at /service/NAME/operation/NAME", targetHeader)
	}
	service := absentService(prefix)
	switch {
	case service == "":
		return api.Exceptionf(codeUnknown, http.StatusBadRequest, "no service has the target %s", quote(prefix+"."+operation))
	case service != v.service:
		return wrongService(service)
	}
	return api.Exceptionf(codeUnknown, http.StatusBadRequest, "%s:%s is not there: this server does not have the service %s", service, shorten(operation), service)
}

// parseTarget reads SERVICE.OPERATION from the header, or both from a path that
// ends in /service/SERVICE/operation/OPERATION.
func parseTarget(p protocol, path string, header []string) (service, operation string, ok bool) {
	if p == jsonRPC {
		if len(header) != 1 || path != "/" {
			return "", "", false
		}
		service, operation, _ = strings.Cut(header[0], ".")
	} else {
		parts := splitPath(path)
		n := len(parts)
		if len(header) > 0 || n < 4 || parts[n-4] != "service" || parts[n-2] != "operation" {
			return "", "", false
		}
		service, operation = parts[n-3], parts[n-1]
	}
	return service, operation, isTargetName(service) && isTargetName(operation)
}

func isTargetName(s string) bool {
	return s != "" && len(s) <= 128 && !strings.ContainsFunc(s, notCredential)
}

func wrongService(service string) error {
	return refuse(codeBadSignature, "Credential should be scoped to correct service: '%s'.", service)
}
