// Package redirect sends a host's TCP traffic through its Envoy by iptables:
// inbound connections to the application's ports to Envoy's ingress, outbound
// ones to its egress. It decides which rules there are and applies them as one
// step, so that no half of them is ever in force; where Envoy listens and what
// it does with the traffic is not its matter. Chains, variables and rules are
// App Mesh's (facts/data-plane.md F.2 and F.3).
package redirect

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// The chains of table nat that hold the rules.
const (
	IngressChain = "APPMESH_INGRESS"
	EgressChain  = "APPMESH_EGRESS"
)

// maxPorts is how many ports the multiport match takes; App Mesh's network
// plug-in ignored the sixteenth without a word, here it gets a rule of its own.
const maxPorts = 15

// Config is what is redirected. The zero value is not valid: check with Validate.
type Config struct {
	IgnoreUID string // traffic of this owner, Envoy's, is left alone; a number, or empty
	IgnoreGID string // likewise by group; one of both is required

	IngressPort int   // Envoy's ingress, where inbound connections to AppPorts go
	EgressPort  int   // Envoy's egress, where outbound connections go
	AppPorts    []int // empty: nothing inbound is redirected

	EgressIgnoredIPs   []netip.Prefix // outbound traffic there is left alone
	EgressIgnoredPorts []int          // likewise by port

	IPv6 bool // the same rules in ip6tables
}

// The variables of App Mesh's proxy route manager.
const (
	EnvIgnoreUID          = "APPMESH_IGNORE_UID"
	EnvIgnoreGID          = "APPMESH_IGNORE_GID"
	EnvIngressPort        = "APPMESH_ENVOY_INGRESS_PORT"
	EnvEgressPort         = "APPMESH_ENVOY_EGRESS_PORT"
	EnvAppPorts           = "APPMESH_APP_PORTS"
	EnvEgressIgnoredIP    = "APPMESH_EGRESS_IGNORED_IP"
	EnvEgressIgnoredPorts = "APPMESH_EGRESS_IGNORED_PORTS"
	EnvEnableIPv6         = "APPMESH_ENABLE_IPV6"
)

// metadataIPs are where a cloud host gets its credentials: redirected, an
// application would lose its role. They are the default of EnvEgressIgnoredIP,
// as ECS adds them by itself.
const metadataIPs = "169.254.169.254,169.254.170.2"

// Parse reads a Config from the values of the variables above. A variable that
// is not set has its default: Envoy's ports 15000 and 15001, the metadata
// addresses. SSH (port 22) is always left alone, as App Mesh does. All that is
// wrong is reported at once, by variable.
func Parse(lookup func(name string) (string, bool)) (Config, error) {
	var errs []error
	read := func(name, otherwise string) string {
		if value, ok := lookup(name); ok {
			return strings.TrimSpace(value)
		}
		return otherwise
	}
	ports := func(name, otherwise string) []int {
		list, err := parsePorts(read(name, otherwise))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		return list
	}
	one := func(name, otherwise string) int {
		list := ports(name, otherwise)
		if len(list) > 1 {
			errs = append(errs, fmt.Errorf("%s: one port, not %d", name, len(list)))
		}
		return slices.Concat(list, []int{0})[0]
	}
	c := Config{
		IgnoreUID: read(EnvIgnoreUID, ""), IgnoreGID: read(EnvIgnoreGID, ""),
		IngressPort: one(EnvIngressPort, "15000"), EgressPort: one(EnvEgressPort, "15001"),
		AppPorts: ports(EnvAppPorts, ""), EgressIgnoredPorts: ports(EnvEgressIgnoredPorts, ""),
	}
	if !slices.Contains(c.EgressIgnoredPorts, 22) {
		c.EgressIgnoredPorts = append(c.EgressIgnoredPorts, 22)
	}
	var err error
	if c.EgressIgnoredIPs, err = parsePrefixes(read(EnvEgressIgnoredIP, metadataIPs)); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", EnvEgressIgnoredIP, err))
	}
	if c.IPv6, err = strconv.ParseBool(read(EnvEnableIPv6, "0")); err != nil {
		errs = append(errs, fmt.Errorf("%s: %q is not true or false", EnvEnableIPv6, read(EnvEnableIPv6, "0")))
	}
	errs = append(errs, c.validate()...)
	return c, errors.Join(errs...)
}

func (c Config) validate() []error {
	var errs []error
	if c.IgnoreUID == "" && c.IgnoreGID == "" {
		errs = append(errs, fmt.Errorf("%s or %s is required: without one of them Envoy's own traffic would come back to Envoy for ever", EnvIgnoreUID, EnvIgnoreGID))
	}
	for name, id := range map[string]string{EnvIgnoreUID: c.IgnoreUID, EnvIgnoreGID: c.IgnoreGID} {
		if _, err := strconv.ParseUint(id, 10, 32); id != "" && err != nil {
			errs = append(errs, fmt.Errorf("%s: %q is not a numeric id", name, id))
		}
	}
	if c.EgressPort == 0 {
		errs = append(errs, fmt.Errorf("%s is required", EnvEgressPort))
	}
	if c.IngressPort == 0 && len(c.AppPorts) > 0 {
		errs = append(errs, fmt.Errorf("%s is required with %s", EnvIngressPort, EnvAppPorts))
	}
	return errs
}

func parsePorts(list string) ([]int, error) {
	var ports []int
	for _, text := range splitList(list) {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil || port == 0 {
			return nil, fmt.Errorf("%q is not a port", text)
		}
		if !slices.Contains(ports, int(port)) {
			ports = append(ports, int(port))
		}
	}
	return ports, nil
}

func parsePrefixes(list string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, text := range splitList(list) {
		prefix, err := netip.ParsePrefix(text)
		if address, addressErr := netip.ParseAddr(text); addressErr == nil && address.Zone() == "" {
			prefix, err = netip.PrefixFrom(address, address.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%q is neither an IP address nor a CIDR", text)
		}
		prefixes = append(prefixes, prefix.Masked())
	}
	return prefixes, nil
}

func splitList(list string) []string {
	var parts []string
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

// jumps lead from the kernel's chains into ours. Traffic within the host never
// passes Envoy.
var jumps = []string{
	"-A PREROUTING -p tcp -m addrtype ! --src-type LOCAL -j " + IngressChain,
	"-A OUTPUT -p tcp -m addrtype ! --dst-type LOCAL -j " + EgressChain,
}

// rules are the lines of our chains for one family, in matching order.
func (c Config) rules(ipv6 bool) []string {
	var rules []string
	for _, ports := range chunks(c.AppPorts) {
		rules = append(rules, fmt.Sprintf("-A %s -p tcp -m multiport --dports %s -j REDIRECT --to-ports %d", IngressChain, ports, c.IngressPort))
	}
	if c.IgnoreUID != "" {
		rules = append(rules, fmt.Sprintf("-A %s -m owner --uid-owner %s -j RETURN", EgressChain, c.IgnoreUID))
	}
	if c.IgnoreGID != "" {
		rules = append(rules, fmt.Sprintf("-A %s -m owner --gid-owner %s -j RETURN", EgressChain, c.IgnoreGID))
	}
	for _, ports := range chunks(c.EgressIgnoredPorts) {
		rules = append(rules, fmt.Sprintf("-A %s -p tcp -m multiport --dports %s -j RETURN", EgressChain, ports))
	}
	for _, prefix := range c.EgressIgnoredIPs {
		if prefix.Addr().Is6() == ipv6 {
			rules = append(rules, fmt.Sprintf("-A %s -p tcp -d %s -j RETURN", EgressChain, prefix))
		}
	}
	return append(rules, fmt.Sprintf("-A %s -p tcp -j REDIRECT --to-ports %d", EgressChain, c.EgressPort))
}

func chunks(ports []int) []string {
	var lists []string
	for chunk := range slices.Chunk(ports, maxPorts) {
		texts := make([]string, len(chunk))
		for i, port := range chunk {
			texts[i] = strconv.Itoa(port)
		}
		lists = append(lists, strings.Join(texts, ","))
	}
	return lists
}

// enableScript turns the rules that are in force (lines of iptables-save) into
// ours: one transaction for iptables-restore --noflush. Naming a chain empties
// it, so that the script gives the same result however often it runs.
func (c Config) enableScript(inForce []string, ipv6 bool) string {
	lines := []string{"*nat", ":" + IngressChain + " - [0:0]", ":" + EgressChain + " - [0:0]"}
	lines = append(lines, removals(inForce)...)
	lines = append(lines, c.rules(ipv6)...)
	lines = append(lines, jumps...)
	return strings.Join(append(lines, "COMMIT", ""), "\n")
}

// disableScript removes all of it; empty if nothing is there.
func disableScript(inForce []string) string {
	lines := removals(inForce)
	for _, chain := range []string{IngressChain, EgressChain} {
		if slices.ContainsFunc(inForce, func(line string) bool { return strings.HasPrefix(line, ":"+chain+" ") }) {
			lines = append(lines, "-F "+chain, "-X "+chain)
		}
	}
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(slices.Concat([]string{"*nat"}, lines, []string{"COMMIT", ""}), "\n")
}

// removals deletes every jump to our chains, however many there are.
func removals(inForce []string) []string {
	var lines []string
	for _, line := range inForce {
		rest, isRule := strings.CutPrefix(line, "-A ")
		if isRule && isJump(line) {
			lines = append(lines, "-D "+rest)
		}
	}
	return lines
}

func isJump(line string) bool {
	return !isOurs(line) && (strings.HasSuffix(line, "-j "+IngressChain) || strings.HasSuffix(line, "-j "+EgressChain))
}

// isOurs is true for the rules of our chains.
func isOurs(line string) bool {
	return strings.HasPrefix(line, "-A "+IngressChain+" ") || strings.HasPrefix(line, "-A "+EgressChain+" ")
}
