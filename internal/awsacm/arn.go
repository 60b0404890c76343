package awsacm

import (
	"errors"
	"strings"

	"github.com/fairlead/fairlead/internal/awsapi"
)

// maxARN bounds an ARN: AWS's have some 90 characters.
const maxARN = 300

var errARN = errors.New("is not the ARN of a certificate or of a certificate authority in this server's region")

// parseARN returns the account of a certificate's or an authority's ARN.
func parseARN(arn, region string) (account string, err error) {
	part := strings.SplitN(arn, ":", 6)
	if len(arn) > maxARN || len(part) != 6 || part[0] != "arn" || part[1] != awsapi.Partition(region) || part[3] != region || len(part[4]) != 12 {
		return "", errARN
	}
	kind, id, _ := strings.Cut(part[5], "/")
	if id == "" || strings.Contains(id, "/") || part[2]+" "+kind != "acm certificate" && part[2]+" "+kind != "acm-pca certificate-authority" {
		return "", errARN
	}
	return part[4], nil
}

// isAuthority says whether an ARN that parseARN has accepted is an authority's.
func isAuthority(arn string) bool { return strings.Contains(arn, ":acm-pca:") }
