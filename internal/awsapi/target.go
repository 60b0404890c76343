package awsapi

import (
	"net/http"
	"strings"

	"github.com/fairlead/fairlead/api"
)

// rpcService is a service whose operations are called by their targets.
type rpcService struct {
	signingName string
	operations  map[string]*route
}

// MountTargets routes all operations of a service model that are called by
// target, PREFIX.OPERATION, in AWS JSON 1.1 and in Smithy RPC v2 CBOR. It is
// Mount otherwise: AWS ignores members of an input that it does not know, here
// they are refused by name, as everywhere; an SDK of the model's version or an
// older one sends none.
func MountTargets[S any](m *Mux, signingName, prefix string, service S, ops []api.Operation[S]) {
	mounted := &rpcService{signingName, map[string]*route{}}
	for _, op := range ops {
		mounted.operations[op.Name] = routeOf(signingName, service, op)
	}
	m.targets[prefix] = mounted
}

// absentService is the signing name of a service that AWS has and this server
// has not, by the prefix of its targets; empty: no service has it.
func absentService(prefix string) string {
	switch prefix {
	case "Route53AutoNaming_v20170314":
		return "servicediscovery"
	}
	return ""
}

// findTarget returns the route of a request of one of the two protocols that
// name their operation in a target.
func (m *Mux) findTarget(p protocol, r *http.Request, v verified) (*route, error) {
	if named := r.Header.Values(protocolHeader); p == rpcCBOR && (len(named) != 1 || named[0] != protocolCBOR) {
		return nil, unknownOperation("the %s %s is not spoken here: %s is", protocolHeader, quote(strings.Join(named, ", ")), protocolCBOR)
	}
	prefix, operation, ok := parseTarget(p, v.path, r.Header.Values(targetHeader))
	if !ok || r.Method != http.MethodPost {
		return nil, unknownOperation("an operation is called by POST: with one %s header at the path /, or in CBOR at /service/NAME/operation/NAME", targetHeader)
	}
	mounted, here := m.targets[prefix]
	if !here {
		mounted = &rpcService{signingName: absentService(prefix)}
	}
	service, found := mounted.signingName, mounted.operations[operation]
	switch {
	case service == "":
		return nil, unknownOperation("no service has the target %s", quote(prefix+"."+operation))
	case service != v.service:
		return nil, wrongService(service)
	case !here:
		return nil, unknownOperation("%s:%s is not there: this server does not have the service %s", service, shorten(operation), service)
	case found == nil:
		return nil, unknownOperation("the service %s has no operation %s", service, quote(operation))
	}
	return found, nil
}

func unknownOperation(format string, args ...any) error {
	return api.Exceptionf(codeUnknown, http.StatusBadRequest, format, args...)
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
