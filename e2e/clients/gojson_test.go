package clients_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/appmesh/types"
)

// unionMembers are the SDK's types for the members of the model's unions: their
// names are those of the interface, "Member", and of the member.
var unionMembers = []any{
	&types.AccessLogMemberFile{},
	&types.BackendMemberVirtualService{},
	&types.ClientTlsCertificateMemberFile{}, &types.ClientTlsCertificateMemberSds{},
	&types.GrpcMetadataMatchMethodMemberExact{}, &types.GrpcMetadataMatchMethodMemberPrefix{}, &types.GrpcMetadataMatchMethodMemberRange{},
	&types.GrpcMetadataMatchMethodMemberRegex{}, &types.GrpcMetadataMatchMethodMemberSuffix{},
	&types.GrpcRouteMetadataMatchMethodMemberExact{}, &types.GrpcRouteMetadataMatchMethodMemberPrefix{}, &types.GrpcRouteMetadataMatchMethodMemberRange{},
	&types.GrpcRouteMetadataMatchMethodMemberRegex{}, &types.GrpcRouteMetadataMatchMethodMemberSuffix{},
	&types.HeaderMatchMethodMemberExact{}, &types.HeaderMatchMethodMemberPrefix{}, &types.HeaderMatchMethodMemberRange{},
	&types.HeaderMatchMethodMemberRegex{}, &types.HeaderMatchMethodMemberSuffix{},
	&types.ListenerTimeoutMemberGrpc{}, &types.ListenerTimeoutMemberHttp{}, &types.ListenerTimeoutMemberHttp2{}, &types.ListenerTimeoutMemberTcp{},
	&types.ListenerTlsCertificateMemberAcm{}, &types.ListenerTlsCertificateMemberFile{}, &types.ListenerTlsCertificateMemberSds{},
	&types.ListenerTlsValidationContextTrustMemberFile{}, &types.ListenerTlsValidationContextTrustMemberSds{},
	&types.LoggingFormatMemberJson{}, &types.LoggingFormatMemberText{},
	&types.ServiceDiscoveryMemberAwsCloudMap{}, &types.ServiceDiscoveryMemberDns{},
	&types.TlsValidationContextTrustMemberAcm{}, &types.TlsValidationContextTrustMemberFile{}, &types.TlsValidationContextTrustMemberSds{},
	&types.VirtualGatewayAccessLogMemberFile{},
	&types.VirtualGatewayClientTlsCertificateMemberFile{}, &types.VirtualGatewayClientTlsCertificateMemberSds{},
	&types.VirtualGatewayConnectionPoolMemberGrpc{}, &types.VirtualGatewayConnectionPoolMemberHttp{}, &types.VirtualGatewayConnectionPoolMemberHttp2{},
	&types.VirtualGatewayListenerTlsCertificateMemberAcm{}, &types.VirtualGatewayListenerTlsCertificateMemberFile{}, &types.VirtualGatewayListenerTlsCertificateMemberSds{},
	&types.VirtualGatewayListenerTlsValidationContextTrustMemberFile{}, &types.VirtualGatewayListenerTlsValidationContextTrustMemberSds{},
	&types.VirtualGatewayTlsValidationContextTrustMemberAcm{}, &types.VirtualGatewayTlsValidationContextTrustMemberFile{}, &types.VirtualGatewayTlsValidationContextTrustMemberSds{},
	&types.VirtualNodeConnectionPoolMemberGrpc{}, &types.VirtualNodeConnectionPoolMemberHttp{}, &types.VirtualNodeConnectionPoolMemberHttp2{}, &types.VirtualNodeConnectionPoolMemberTcp{},
	&types.VirtualServiceProviderMemberVirtualNode{}, &types.VirtualServiceProviderMemberVirtualRouter{},
}

// goInput makes the pointer to an input structure of the SDK from JSON.
func goInput(pointer reflect.Type, text json.RawMessage) (reflect.Value, error) {
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return reflect.Value{}, err
	}
	input := reflect.New(pointer.Elem())
	return input, toGo(input.Elem(), value)
}

// toGo sets a value of one of the SDK's types from what JSON has. A member that
// the type does not have is an error: no case may test less than it says.
func toGo(to reflect.Value, from any) error {
	switch to.Kind() {
	case reflect.Pointer:
		to.Set(reflect.New(to.Type().Elem()))
		return toGo(to.Elem(), from)
	case reflect.Interface:
		return toUnion(to, from)
	case reflect.Slice:
		list, ok := from.([]any)
		if !ok {
			return fmt.Errorf("%v is no list", from)
		}
		to.Set(reflect.MakeSlice(to.Type(), len(list), len(list)))
		for i, v := range list {
			if err := toGo(to.Index(i), v); err != nil {
				return err
			}
		}
		return nil
	case reflect.Struct:
		members, ok := from.(map[string]any)
		if !ok {
			return fmt.Errorf("%v is no structure", from)
		}
		for name, v := range members {
			field := to.FieldByName(strings.ToUpper(name[:1]) + name[1:])
			if !field.IsValid() {
				return fmt.Errorf("%s has no member %s", to.Type(), name)
			}
			if err := toGo(field, v); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	}
	v := reflect.ValueOf(from)
	if !v.IsValid() || !v.CanConvert(to.Type()) {
		return fmt.Errorf("%v is no %s", from, to.Type())
	}
	to.Set(v.Convert(to.Type()))
	return nil
}

func toUnion(to reflect.Value, from any) error {
	members, ok := from.(map[string]any)
	if !ok || len(members) != 1 {
		return fmt.Errorf("%s has one member, not %v", to.Type(), from)
	}
	for name, v := range members {
		for _, m := range unionMembers {
			found := reflect.TypeOf(m)
			if found.Implements(to.Type()) && unionMember(found.Elem()) == name {
				to.Set(reflect.New(found.Elem()))
				return toGo(to.Elem().Elem().FieldByName("Value"), v)
			}
		}
		return fmt.Errorf("%s has no member %s", to.Type(), name)
	}
	return nil
}

// unionMember is the member that a type stands for.
func unionMember(t reflect.Type) string {
	_, name, _ := strings.Cut(t.Name(), "Member")
	return member(name)
}

// fromGo is what a value of the SDK is in JSON; what is absent is nil. Only
// required members are not pointers, so that a zero is one.
func fromGo(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		if v.Kind() == reflect.Interface { // of a union
			concrete := v.Elem().Elem()
			return map[string]any{unionMember(concrete.Type()): fromGo(concrete.FieldByName("Value"))}
		}
		return fromGo(v.Elem())
	case reflect.Slice:
		if v.IsNil() {
			return nil
		}
		list := []any{}
		for i := range v.Len() {
			list = append(list, fromGo(v.Index(i)))
		}
		return list
	case reflect.Struct:
		if t, ok := v.Interface().(time.Time); ok {
			return t.UnixMilli()
		}
		members := map[string]any{}
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if !field.IsExported() || field.Name == "ResultMetadata" {
				continue
			}
			if value := fromGo(v.Field(i)); value != nil {
				members[member(field.Name)] = value
			}
		}
		return members
	case reflect.String:
		if v.String() == "" && v.Type() != reflect.TypeFor[string]() { // an enumeration's absence
			return nil
		}
		return v.String()
	}
	return v.Interface()
}
