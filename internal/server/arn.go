package server

import (
	"context"
	"net/http"
	"strings"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/mesh"
)

// arn names a resource that an account has made (facts A.6).
func (s *Service) arn(at location, owner string) string {
	return mesh.ARN(awsapi.Partition(s.Region), s.Region, owner, at.mesh, at.id)
}

// parseARN finds the resource of an ARN. Only the caller's own may be named.
func (s *Service) parseARN(ctx context.Context, arn string) (location, error) {
	bad := func(why string) (location, error) {
		return location{}, appmesh.NewBadRequestException("resourceArn: %s is an invalid ARN. %s", arn, why)
	}
	fields := strings.SplitN(arn, ":", 6)
	if len(fields) < 6 || fields[0] != "arn" || fields[2] != "appmesh" {
		return bad("It is not the ARN of an App Mesh resource")
	}
	if fields[1] != awsapi.Partition(s.Region) || fields[3] != s.Region {
		return bad("This server's region is " + s.Region + " in the partition " + awsapi.Partition(s.Region))
	}
	if own := account(ctx); fields[4] != own {
		return location{}, api.Exceptionf("AccessDeniedException", http.StatusForbidden, "%s is an invalid ARN. Invalid account id in the ARN provided : %s", arn, fields[4])
	}
	parts := strings.Split(fields[5], "/")
	name, owner, shared := strings.Cut(parts[1%len(parts)], "@")
	if !shared {
		owner = fields[4]
	}
	at := location{mesh: mesh.Name{Owner: owner, Mesh: name}}
	switch kind := mesh.Kind(parts[min(2, len(parts)-1)]); {
	case parts[0] != "mesh" || len(parts)%2 != 0 || strings.Contains(fields[5]+"/", "//"):
		return bad("It is not the ARN of an App Mesh resource")
	case len(parts) == 2:
		at.id = mesh.ID{Kind: mesh.KindMesh, Name: name}
	case len(parts) == 4 && (kind == mesh.KindVirtualNode || kind == mesh.KindVirtualService || kind == mesh.KindVirtualRouter || kind == mesh.KindVirtualGateway):
		at.id = mesh.ID{Kind: kind, Name: parts[3]}
	case len(parts) == 6 && kind == mesh.KindVirtualRouter && mesh.Kind(parts[4]) == mesh.KindRoute:
		at.id = mesh.ID{Kind: mesh.KindRoute, Parent: parts[3], Name: parts[5]}
	case len(parts) == 6 && kind == mesh.KindVirtualGateway && mesh.Kind(parts[4]) == mesh.KindGatewayRoute:
		at.id = mesh.ID{Kind: mesh.KindGatewayRoute, Parent: parts[3], Name: parts[5]}
	default:
		return bad("It is not the ARN of an App Mesh resource")
	}
	return at, nil
}
