package tlspolicy

import (
	"net/netip"
	"strings"
)

// Matches says whether a name of a certificate satisfies an entry of a SAN list
// (design.md 4). It is the rule that the Envoy matchers are held to:
//   - equal names, host names without regard to case, URIs exactly;
//   - the certificate's *.apps.local satisfies the entry a.apps.local, for one
//     whole label;
//   - the entry *.apps.local is satisfied by that very SAN and by any one label
//     under it.
func Matches(entry, san string) bool {
	if isURI(entry) || isURI(san) {
		return entry == san
	}
	entry, san = strings.ToLower(entry), strings.ToLower(san)
	if entry == san {
		return true
	}
	if _, err := netip.ParseAddr(entry); err == nil {
		return false
	}
	return covers(san, entry) || covers(entry, san)
}

// covers says whether name lies exactly one label under the wildcard.
func covers(wildcard, name string) bool {
	if !IsWildcard(wildcard) {
		return false
	}
	label, rest, ok := strings.Cut(name, ".")
	return ok && isLabel(label) && "*."+rest == wildcard
}

func isLabel(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// isAddress: which addresses a certificate carries is not known (Facts).
func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func isURI(s string) bool { return strings.Contains(s, "://") }

// IsWildcard says whether an entry or a name is *.rest.
func IsWildcard(s string) bool { return strings.HasPrefix(s, "*.") }

// CheckSAN says what is wrong with an entry of a SAN list, in words for the
// answer to a write; empty means nothing. Whether a wildcard is welcome at all
// is the caller's to say (IsWildcard): an enforcing policy takes none.
func CheckSAN(entry string) string {
	if isURI(entry) {
		scheme, rest, _ := strings.Cut(entry, "://")
		if !isLabel(scheme) || rest == "" || strings.HasPrefix(rest, "/") || strings.ContainsAny(rest, " \t*") {
			return "is not a URI with a host"
		}
		return ""
	}
	if _, err := netip.ParseAddr(entry); err == nil {
		return "is an IP address; names are fully qualified host names or URIs"
	}
	if strings.Contains(entry, "@") {
		return "is an e-mail address; names are fully qualified host names or URIs"
	}
	name := entry
	if strings.Contains(entry, "*") {
		if !IsWildcard(entry) || strings.Contains(entry[1:], "*") {
			return "has a wildcard elsewhere than as its whole first label"
		}
		name = entry[len("*."):]
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if !isLabel(l) {
			return "is not a host name"
		}
	}
	if len(labels) < 2 {
		return "is a bare word; names are fully qualified host names or URIs"
	}
	return ""
}

// matchable says whether any certificate can satisfy an entry.
func matchable(entry string) bool {
	return entry != Nobody && CheckSAN(entry) == ""
}
