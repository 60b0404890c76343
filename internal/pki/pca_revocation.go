package pki

import (
	"strconv"
	"strings"

	"github.com/fairlead/fairlead/api/acmpca"
)

// presetCRLDays is how long a CRL holds if its configuration does not say.
const presetCRLDays = 7

// completed is a revocation configuration as it is always described: what is
// not configured is there, and off.
func completed(c *acmpca.RevocationConfiguration) *acmpca.RevocationConfiguration {
	off := false
	out := acmpca.RevocationConfiguration{}
	if c != nil {
		out = *c
	}
	if out.CrlConfiguration == nil {
		out.CrlConfiguration = &acmpca.CrlConfiguration{Enabled: &off}
	}
	if out.OcspConfiguration == nil {
		out.OcspConfiguration = &acmpca.OcspConfiguration{Enabled: &off}
	}
	return &out
}

// checkRevocation refuses configurations that mean nothing, or that are not
// offered.
func checkRevocation(c *acmpca.RevocationConfiguration) error {
	if c == nil {
		return nil
	}
	if l := c.CrlConfiguration; l != nil {
		if err := checkCRL(l); err != nil {
			return err
		}
	}
	if o := c.OcspConfiguration; o != nil {
		if !set(o.Enabled) && o.OcspCustomCname != nil {
			return acmpca.NewInvalidArgsException("RevocationConfiguration.OcspConfiguration: Enabled is false, and then nothing else may be set")
		}
		return checkCname("RevocationConfiguration.OcspConfiguration.OcspCustomCname", o.OcspCustomCname)
	}
	return nil
}

func checkCRL(l *acmpca.CrlConfiguration) error {
	const at = "RevocationConfiguration.CrlConfiguration"
	omit := l.CrlDistributionPointExtensionConfiguration != nil && set(l.CrlDistributionPointExtensionConfiguration.OmitExtension)
	switch {
	case !set(l.Enabled):
		only := acmpca.CrlConfiguration{Enabled: l.Enabled}
		if *l != only {
			return acmpca.NewInvalidArgsException("%s: Enabled is false, and then nothing else may be set", at)
		}
		return nil
	case l.CrlType != nil && *l.CrlType != acmpca.CrlTypeComplete:
		return acmpca.NewInvalidArgsException("%s.CrlType: %s is not offered here: lists are COMPLETE, and have no limit that partitions would raise", at, *l.CrlType)
	case l.CustomPath != nil && l.CustomCname == nil:
		return acmpca.NewInvalidArgsException("%s.CustomPath: give CustomCname as well, the host that serves the list at that path; this server has it at /crl", at)
	case omit && l.CustomCname != nil:
		return acmpca.NewInvalidArgsException("%s: OmitExtension leaves out the extension in which CustomCname would be: set one of the two", at)
	}
	return checkCname(at+".CustomCname", l.CustomCname)
}

// checkCname wants a host, which a scheme or a path would spoil: it is put
// behind http://.
func checkCname(at string, name *string) error {
	if name == nil {
		return nil
	}
	if *name == "" || strings.Contains(*name, "://") || strings.ContainsAny(*name, "/?@&=+$,;%!*()'") {
		return acmpca.NewInvalidArgsException("%s: %.80q is not a host name: give it without scheme and path", at, *name)
	}
	return nil
}

// crlURL is where the authority's list lies, as its certificates say; empty if
// they do not.
func (p *PrivateCA) crlURL(a *authority) string {
	l := a.Revocation.CrlConfiguration
	if !set(l.Enabled) || l.CrlDistributionPointExtensionConfiguration != nil && set(l.CrlDistributionPointExtensionConfiguration.OmitExtension) {
		return ""
	}
	base, path := p.URL, "crl"
	if l.CustomCname != nil {
		base = "http://" + *l.CustomCname
	}
	if l.CustomPath != nil {
		path = strings.Trim(*l.CustomPath, "/")
	}
	return strings.TrimSuffix(base+"/"+path, "/") + "/" + crlName(a.ID, a.Generation)
}

// crlName is the file of a generation's list. The first keeps the name that
// certificates had when there was none but it.
func crlName(id string, generation int) string {
	if generation == 0 {
		return id + ".crl"
	}
	return id + "." + strconv.Itoa(generation) + ".crl"
}

// parseCRLName is the inverse of crlName.
func parseCRLName(name string) (id string, generation int, ok bool) {
	rest, _ := strings.CutSuffix(name, ".crl")
	id, number, numbered := strings.Cut(rest, ".")
	if numbered {
		generation, _ = strconv.Atoi(number)
	}
	return id, generation, generation >= 0 && crlName(id, generation) == name
}

// ocspURL is where the authority's certificates say that their status is known;
// empty if nowhere.
func (p *PrivateCA) ocspURL(a *authority) string {
	o := a.Revocation.OcspConfiguration
	if !set(o.Enabled) {
		return ""
	}
	base := p.URL
	if o.OcspCustomCname != nil {
		base = "http://" + *o.OcspCustomCname
	}
	return base + "/ocsp/" + a.ID
}
