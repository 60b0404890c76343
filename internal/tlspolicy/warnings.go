package tlspolicy

// Warning is what a write should tell its author although it is valid.
type Warning struct {
	Field   string // as in Listener.Field, with the member
	Message string
}

// Warnings says what surprises in a listener's TLS. It needs nothing but the
// listener, so that a write can be answered with it.
func Warnings(l Listener) []Warning {
	if offer(l) == noTLS {
		return nil
	}
	var warnings []Warning
	if l.Validation != nil {
		if l.Mode == ModePermissive {
			warnings = append(warnings, Warning{l.Field + ".mode",
				"PERMISSIVE still lets plaintext in: a client that speaks no TLS needs no certificate either"})
		}
		warnings = append(warnings, Warning{l.Field + ".validation",
			"validation breaks clients without a policy: they speak TLS because this listener does, and have no certificate to present"})
	}
	if c := l.Certificate; c != nil && c.Source == SourceSDS {
		warnings = append(warnings, Warning{l.Field + ".certificate.sds",
			"clients without a policy do not validate a certificate of an SDS other than Fairlead's own"})
	}
	return warnings
}
