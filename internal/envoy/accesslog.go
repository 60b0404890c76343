package envoy

import (
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

// accessLog is the access log of an endpoint's connection managers, none if the
// spec has none. Without a format it is Envoy's default one, as App Mesh left it.
func (d *draft) accessLog(e *mesh.Endpoint) []*accesslogv3.AccessLog {
	path, format := logging(e)
	if path == "" {
		return nil
	}
	log := &filelogv3.FileAccessLog{Path: path}
	switch {
	case format == nil:
	case format.Text != nil:
		line := *format.Text
		if !strings.HasSuffix(line, "\n") {
			line += "\n" // Envoy ends no lines itself
		}
		log.AccessLogFormat = logFormat(&corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
				Specifier: &corev3.DataSource_InlineString{InlineString: line},
			}},
		})
	case len(format.Json) > 0:
		fields := make(map[string]*structpb.Value, len(format.Json))
		for _, f := range format.Json {
			fields[f.Key] = structpb.NewStringValue(f.Value)
		}
		log.AccessLogFormat = logFormat(&corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{Fields: fields}},
		})
	}
	return []*accesslogv3.AccessLog{{
		Name:       "envoy.access_loggers.file",
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: d.pack(log)},
	}}
}

func logFormat(f *corev3.SubstitutionFormatString) *filelogv3.FileAccessLog_LogFormat {
	return &filelogv3.FileAccessLog_LogFormat{LogFormat: f}
}

func logging(e *mesh.Endpoint) (path string, format *appmesh.LoggingFormat) {
	switch {
	case e.Node != nil && e.Node.Spec.Logging != nil && e.Node.Spec.Logging.AccessLog != nil:
		if f := e.Node.Spec.Logging.AccessLog.File; f != nil {
			return f.Path, f.Format
		}
	case e.Gateway != nil && e.Gateway.Spec.Logging != nil && e.Gateway.Spec.Logging.AccessLog != nil:
		if f := e.Gateway.Spec.Logging.AccessLog.File; f != nil {
			return f.Path, f.Format
		}
	}
	return "", nil
}
