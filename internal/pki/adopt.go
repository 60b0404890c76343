package pki

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/internal/awsapi"
)

// Adoption is the answer to an adoption.
type Adoption struct {
	ARN    string `json:"arn"`
	Status string `json:"status"` // as the service describes it
	// Adopted is false if the same was under the ARN already.
	Adopted bool `json:"adopted"`
}

var accountPattern = regexp.MustCompile(`^[0-9]{12}$`)

// parseAdopted finds account and id in an ARN that is to be adopted: service
// and noun are acm and certificate, or acm-pca and certificate-authority.
func parseAdopted(arn, region, service, noun string) (account, id string, err error) {
	fields := strings.Split(arn, ":")
	id, ok := "", false
	if len(fields) == 6 {
		id, ok = strings.CutPrefix(fields[5], noun+"/")
	}
	switch {
	case !ok || fields[0] != "arn" || fields[2] != service || !accountPattern.MatchString(fields[4]) || !idPattern.MatchString(id):
		return "", "", badARN("arn: %.200q is not of the form arn:%s:%s:%s:ACCOUNT:%s/UUID", arn, awsapi.Partition(region), service, region, noun)
	case fields[1] != awsapi.Partition(region) || fields[3] != region:
		return "", "", badARN("arn: %s is of the region %s, and this server's is %s: a mesh uses what is of its own region. Adopt it on a server that runs with --region %[2]s", arn, fields[3], region)
	}
	return fields[4], id, nil
}

func badARN(format string, args ...any) error {
	return api.Exceptionf("InvalidArnException", http.StatusBadRequest, format, args...)
}

// taken refuses an ARN under which something else is.
func taken(arn, format string, args ...any) error {
	return api.Exceptionf("ConflictException", http.StatusConflict, "There is another one under "+arn+" already: "+format+". Nothing was changed", args...)
}
