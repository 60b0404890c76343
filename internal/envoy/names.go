package envoy

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/fairlead/fairlead/api/appmesh"
)

// The names below are App Mesh's: dashboards, alarms and runbooks use them. The
// name of a cluster to another node is mesh.Edge.Cluster; those of the server's
// secrets are in package mesh, too.
const (
	ingressListener = "lds_ingress_0.0.0.0_15000"
	egressListener  = "lds_egress_0.0.0.0_15001"

	ingressPort = 15000 // where a node's intercepted inbound connections arrive
	egressPort  = 15001 // where outbound connections arrive, and a gateway's loop

	// SDSCluster is the static cluster, in the bootstrap, of the provider that
	// serves the secrets of `sds` certificates and trust.
	SDSCluster = "static_cluster_sds_unix_socket"
	// AgentCluster is the static cluster, in an agent's bootstrap, of the agent
	// itself: it serves the secrets of `file` certificates and trust.
	AgentCluster = "fairlead_agent"

	// serviceHeader names the virtual service on a gateway's loop when the
	// authority cannot: it was not rewritten, or the service has several ports.
	serviceHeader = "x-app-mesh-virtual-service"
)

// IngressCluster is the name of the cluster from a node's Envoy to its application.
func IngressCluster(mesh, node string, protocol appmesh.PortProtocol, port int64) string {
	return fmt.Sprintf("cds_ingress_%s_%s_%s_%d", mesh, node, protocol, port)
}

// selfRedirectCluster is the name of the cluster by which a gateway's listener
// hands requests to the gateway's own egress. Only a gateway with several
// listeners has the port in it.
func selfRedirectCluster(mesh, gateway string, protocol appmesh.PortProtocol, port int64, several bool) string {
	if several {
		return fmt.Sprintf("cds_ingress_%s_%s_self_redirect_%d_%s_%d", mesh, gateway, port, protocol, egressPort)
	}
	return fmt.Sprintf("cds_ingress_%s_%s_self_redirect_%s_%d", mesh, gateway, protocol, egressPort)
}

// awsCluster and allowAllCluster lead to wherever the application dialled.
func awsCluster(mesh string) string      { return "cds_egress_" + mesh + "_amazonaws" }
func allowAllCluster(mesh string) string { return "cds_egress_" + mesh + "_mesh-allow-all" }

func gatewayListener(port int64) string { return fmt.Sprintf("lds_ingress_0.0.0.0_%d", port) }

// listenerStats keeps App Mesh's statistics, listener.0.0.0.0_15000.…, whatever
// address the listener really binds.
func listenerStats(port int64) string { return fmt.Sprintf("0.0.0.0_%d", port) }

func ingressTable(protocol appmesh.PortProtocol, port int64) string {
	return fmt.Sprintf("rds_ingress_%s_%d", protocol, port)
}

func egressTable(protocol appmesh.PortProtocol, port int64) string {
	return fmt.Sprintf("rds_egress_%s_%d", protocol, port)
}

// ingressStats is the stat prefix of a listener's connection manager: with
// several listeners it tells them apart, and the agent's stats tags take it off
// again.
func ingressStats(protocol appmesh.PortProtocol, port int64, several bool) string {
	if several {
		return fmt.Sprintf("ingress.%s.%d", protocol, port)
	}
	return "ingress"
}

const (
	fileCertificatePrefix = "file-certificate:"
	fileTrustPrefix       = "file-trust:"
)

// FileSecret is a secret that the agent makes from files of its host.
type FileSecret struct {
	Chain string // path of the certificate chain, or of the trust bundle
	Key   string // path of the private key; empty: this is a trust bundle
}

// FileCertificateName is the name by which an Envoy asks its agent for the
// certificate in two files.
func FileCertificateName(chain, key string) string {
	return fileCertificatePrefix + url.Values{"chain": {chain}, "key": {key}}.Encode()
}

// FileTrustName is the name by which an Envoy asks its agent for the trust
// bundle in a file.
func FileTrustName(chain string) string {
	return fileTrustPrefix + url.Values{"chain": {chain}}.Encode()
}

// ParseFileSecret reads a name made by FileCertificateName or FileTrustName.
func ParseFileSecret(name string) (FileSecret, error) {
	query, certificate := strings.CutPrefix(name, fileCertificatePrefix)
	if !certificate {
		var trust bool
		if query, trust = strings.CutPrefix(name, fileTrustPrefix); !trust {
			return FileSecret{}, fmt.Errorf("secret %q is not one of files", name)
		}
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return FileSecret{}, fmt.Errorf("parse secret name %q: %w", name, err)
	}
	secret := FileSecret{Chain: values.Get("chain"), Key: values.Get("key")}
	if secret.Chain == "" || certificate != (secret.Key != "") {
		return FileSecret{}, fmt.Errorf("parse secret name %q: a path is missing", name)
	}
	return secret, nil
}
