package ca

import (
	"time"
)

// ValidityType says how a Validity counts.
type ValidityType string

// The types of Private CA.
const (
	Days     ValidityType = "DAYS"
	Months   ValidityType = "MONTHS"
	Years    ValidityType = "YEARS"
	Absolute ValidityType = "ABSOLUTE" // seconds since 1970
	EndDate  ValidityType = "END_DATE" // YYMMDDHHMMSS or YYYYMMDDHHMMSS, UTC
)

// Validity is a point in time, relative or absolute.
type Validity struct {
	Type  ValidityType
	Value int64
}

// backdated is how long before now a certificate begins if nobody says
// (Private CA's default).
const backdated = 60 * time.Minute

// shortLived is the longest life in short-lived mode.
const shortLived = 7 * 24 * time.Hour

// endOfTime is the last second that a certificate can name; RFC 5280 4.1.2.5
// uses it for one that does not expire.
var endOfTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// End is the moment that the validity names, counted from now. Months and years
// are the calendar's: a day that the month does not have becomes its last.
func (v Validity) End(now time.Time) (time.Time, error) {
	now = now.UTC().Truncate(time.Second)
	if v.Value < 1 {
		return time.Time{}, faultf(InvalidArgs, "validity %s %d: the value must be at least 1", v.Type, v.Value)
	}
	var end time.Time
	switch v.Type {
	case Days, Months, Years:
		if v.Value > 8000*366 { // days; more than the end of time
			return time.Time{}, v.tooLate()
		}
		switch v.Type {
		case Days:
			end = now.AddDate(0, 0, int(v.Value))
		case Months:
			end = addMonths(now, int(v.Value))
		default:
			end = addMonths(now, 12*int(v.Value))
		}
	case Absolute:
		if v.Value > endOfTime.Unix() {
			return time.Time{}, v.tooLate()
		}
		end = time.Unix(v.Value, 0).UTC()
	case EndDate:
		return v.endDate()
	default:
		return time.Time{}, faultf(InvalidArgs, "validity type %q is not one of DAYS, MONTHS, YEARS, ABSOLUTE, END_DATE", v.Type)
	}
	if end.After(endOfTime) {
		return time.Time{}, v.tooLate()
	}
	return end, nil
}

func (v Validity) tooLate() error {
	return faultf(InvalidArgs, "validity %s %d ends after the year 9999", v.Type, v.Value)
}

func addMonths(t time.Time, months int) time.Time {
	end := t.AddDate(0, months, 0)
	if end.Day() != t.Day() { // it ran over into the next month
		end = end.AddDate(0, 0, -end.Day())
	}
	return end
}

// endDate reads the digits of UTCTime or GeneralizedTime. Of the former, years
// from 50 are in the 1900s (RFC 5280 4.1.2.5.1).
func (v Validity) endDate() (time.Time, error) {
	const utcTimes = 1_000000_000000 // the first number that is no UTCTime
	const generalizedTimes = 100 * utcTimes
	n := v.Value
	switch {
	case n >= generalizedTimes || n >= utcTimes && n < 10*utcTimes:
		return time.Time{}, faultf(InvalidArgs, "validity END_DATE %d is neither YYMMDDHHMMSS nor YYYYMMDDHHMMSS", n)
	case n < 50_0000_000000:
		n += 2000_0000_000000
	case n < utcTimes:
		n += 1900_0000_000000
	}
	parts := [6]int{}
	for i := 5; i > 0; i-- {
		parts[i] = int(n % 100)
		n /= 100
	}
	parts[0] = int(n)
	end := time.Date(parts[0], time.Month(parts[1]), parts[2], parts[3], parts[4], parts[5], 0, time.UTC)
	if [6]int{end.Year(), int(end.Month()), end.Day(), end.Hour(), end.Minute(), end.Second()} != parts {
		return time.Time{}, faultf(InvalidArgs, "validity END_DATE %d is not a date and time", v.Value)
	}
	return end, nil
}

// period decides from when to when a certificate is valid.
func (r *Request) period(issuer *issuer, isRoot bool) (notBefore, notAfter time.Time, err error) {
	now := r.Now.UTC().Truncate(time.Second)
	notBefore = now.Add(-backdated)
	if r.NotBefore != nil {
		if r.NotBefore.Type != Absolute {
			return notBefore, notAfter, faultf(InvalidArgs, "ValidityNotBefore must be of type ABSOLUTE, not %s", r.NotBefore.Type)
		}
		if notBefore, err = r.NotBefore.End(now); err != nil {
			return notBefore, notAfter, err
		}
	}
	notAfter, err = r.Validity.End(now)
	if err != nil {
		return notBefore, notAfter, err
	}
	switch {
	case !notAfter.After(now):
		return notBefore, notAfter, faultf(InvalidArgs, "the certificate would end at %s, which is past", stamp(notAfter))
	case !notAfter.After(notBefore):
		return notBefore, notAfter, faultf(InvalidArgs, "the certificate would end at %s, before it begins at %s", stamp(notAfter), stamp(notBefore))
	case isRoot:
		return notBefore, notAfter, nil // a root is its own limit, and not short-lived
	case notAfter.After(issuer.notAfter):
		return notBefore, notAfter, faultf(InvalidDuration, "The certificate validity specified exceeds the certificate authority validity: it would end at %s, the authority at %s", stamp(notAfter), stamp(issuer.notAfter))
	case r.ShortLived && notAfter.Sub(now) > shortLived:
		return notBefore, notAfter, faultf(InvalidDuration, "an authority in short-lived mode issues for at most 7 days; the certificate would end at %s", stamp(notAfter))
	}
	return notBefore, notAfter, nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
